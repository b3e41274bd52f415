"""CLIP's encoders and the ResNets with SiLU, by timm's names.

y = act(s(x) + f(x))     f = 1x1 bn act 3x3 bn act 1x1 bn; CLIP: act = relu, means in the place of strides
"""

import torch
import torch.nn.functional as F

from . import layers

CLIP = {
    "50": ((3, 4, 6, 3), 64, 7, 1024),
    "101": ((3, 4, 23, 3), 64, 7, 512),
    "50x4": ((4, 6, 10, 6), 80, 9, 640),
    "50x16": ((6, 8, 18, 8), 96, 12, 768),
    "50x64": ((3, 15, 36, 10), 128, 14, 1024),
}
# name: blocks, channels of a group (0: one group; last stage of the q ones: of one channel), stem, features
SILU = {
    "resnext26ts": ((2, 2, 2, 2), 32, (24, 32, 64), 0),
    "seresnext26ts": ((2, 2, 2, 2), 32, (24, 32, 64), 0),
    "resnet32ts": ((2, 3, 3, 2), 0, (24, 32, 64), 0),
    "resnet33ts": ((2, 3, 3, 2), 0, (24, 32, 64), 1280),
    "seresnet33ts": ((2, 3, 3, 2), 0, (24, 32, 64), 1280),
    "resnet51q": ((2, 4, 6, 4), 32, (16, 32, 64, 128), 2048),
    "resnet61q": ((1, 4, 6, 4), 32, (16, 32, 64, 128), 2048),
}


def _layer(name, cout, cin, kernel, groups=1):
    return layers.conv(f"{name}.conv", cout, cin, kernel, groups) | layers.norm(f"{name}.bn", cout)


def clip_shapes(size, head):
    """head: "attention", "mean" or "hidden"."""
    depths, width, grid, classes = CLIP[size]
    names, channels = {}, 3
    for i, cout in enumerate((width // 2, width // 2, width), start=1):
        names |= _layer(f"stem.conv{i}", cout, channels, 3)
        channels = cout
    for s, blocks in enumerate(depths):
        inner = width * 2**s
        for b in range(blocks):
            at = f"stages.{s}.{b}"
            if b == 0:
                names |= _layer(f"{at}.shortcut.conv", 4 * inner, channels, 1)
            names |= _layer(f"{at}.conv1_1x1", inner, channels, 1)
            names |= _layer(f"{at}.conv2_kxk", inner, inner, 3)
            names |= _layer(f"{at}.conv3_1x1", 4 * inner, inner, 1)
            channels = 4 * inner
    if head == "attention":
        for one in ("q", "k", "v"):
            names |= layers.linear(f"head.{one}", channels, channels)
        names |= {"head.pos_embed": (grid**2 + 1, channels)}
        return names | layers.linear("head.proj", classes, channels)
    if head == "hidden":
        names |= layers.norm("head.norm", channels)
        names |= layers.linear("head.pre_logits.fc", 1024, channels)
        channels = 1024
    return names | layers.linear("head.fc", 1000, channels)


def silu_shapes(name):
    depths, size, stem, features = SILU[name]
    outer = (256, 512, 1024, 2048) if "26" in name else (256, 512, 1536, 1536)
    names, channels = {}, 3
    for i, cout in enumerate(stem, start=1):
        if name == "resnet51q" and i < 3:
            names |= layers.conv(f"stem.conv{i}", cout, channels, 3)
        else:
            names |= _layer(f"stem.conv{i}", cout, channels, 3)
        channels = cout
    for s, blocks in enumerate(depths):
        depthwise = name.endswith("q") and s == 3
        inner = outer[s] if depthwise else outer[s] // 4
        groups = inner if depthwise else inner // size if size else 1
        for b in range(blocks):
            at, cout = f"stages.{s}.{b}", outer[s]
            if b == 0:
                names |= layers.conv(f"{at}.shortcut.conv", cout, channels, 1)
                names |= layers.norm(f"{at}.shortcut.bn", cout)
            if name == "resnet61q" and s == 0:
                names |= _layer(f"{at}.conv1_kxk", cout, channels, 3)
                names |= _layer(f"{at}.conv2_1x1", cout, cout, 1)
            else:
                names |= _layer(f"{at}.conv1_1x1", inner, channels, 1)
                for second in ("", "b") if name == "resnet61q" else ("",):
                    names |= _layer(f"{at}.conv2{second}_kxk", inner, inner, 3, groups)
                names |= _layer(f"{at}.conv3_1x1", cout, inner, 1)
            if name.startswith("se"):
                squeezed = max(8, (inner // 16 + 4) // 8 * 8)
                names |= layers.conv(f"{at}.attn.fc1", squeezed, inner, 1, bias=True)
                names |= layers.conv(f"{at}.attn.fc2", inner, squeezed, 1, bias=True)
            channels = cout
    if features:
        names |= _layer("final_conv", features, channels, 1)
    return names | layers.linear("head.fc", 1000, features or channels)


def forward(net, x):
    """net: Layers of a state dict. x: (N, 3, H, W), of CLIP's sides multiples of 32."""
    clip = "stages.0.0.shortcut.conv.conv" in net
    act = F.relu if clip else F.silu

    def layer(name, x, stride=1):
        return act(net.norm(f"{name}.bn", net.conv(f"{name}.conv", x, stride)))

    stem = net.count("stem.conv{}.", first=1)
    # Of those with SiLU, only the ones that end in 2048 channels pool in the stem.
    pooled = clip or len(net.state["stages.3.0.shortcut.bn.weight"]) == 2048
    for i in range(1, stem + 1):
        stride = 2 if i == 1 or (i == stem and not pooled) else 1
        bare = f"stem.conv{i}" in net
        x = net.conv(f"stem.conv{i}", x, stride) if bare else layer(f"stem.conv{i}", x, stride)
    if clip:
        x = F.avg_pool2d(x, 2)
    elif pooled:
        x = F.max_pool2d(x, 3, 2, 1)
    for s in range(4):
        for b in range(net.count(f"stages.{s}.{{}}.")):
            x = _block(net, layer, act, f"stages.{s}.{b}", x, 2 if b == 0 and s > 0 else 1, clip)
    return _head(net, layer, act, x)


def _block(net, layer, act, at, x, stride, clip):
    if f"{at}.conv1_kxk.conv" in net:
        f, last = layer(f"{at}.conv1_kxk", x, stride), f"{at}.conv2_1x1"
    else:
        f = layer(f"{at}.conv1_1x1", x)
        f = layer(f"{at}.conv2_kxk", f, 1 if clip else stride)
        f = F.avg_pool2d(f, 2) if clip and stride == 2 else f
        f = layer(f"{at}.conv2b_kxk", f) if f"{at}.conv2b_kxk.conv" in net else f
        last = f"{at}.conv3_1x1"
    if f"{at}.attn.fc1" in net:
        gain = F.relu(net.conv(f"{at}.attn.fc1", f.mean((2, 3), keepdim=True)))
        f = f * net.conv(f"{at}.attn.fc2", gain).sigmoid()
    f = net.norm(f"{last}.bn", net.conv(f"{last}.conv", f))
    if f"{at}.shortcut.conv.conv" in net:
        x = F.avg_pool2d(x, 2) if stride == 2 else x
        x = net.norm(f"{at}.shortcut.conv.bn", net.conv(f"{at}.shortcut.conv.conv", x))
    elif f"{at}.shortcut.conv" in net:
        x = net.norm(f"{at}.shortcut.bn", net.conv(f"{at}.shortcut.conv", x, stride))
    return act(x + f)


def _head(net, layer, act, x):
    if "head.pos_embed" in net.state:
        return _attend(net, x)
    if "final_conv.conv" in net:
        x = layer("final_conv", x)
    if "head.norm" in net:
        x = net.norm("head.norm", x.mean((2, 3)))
        return net.linear("head.fc", act(net.linear("head.pre_logits.fc", x)))
    return net.linear("head.fc", x.mean((2, 3)))


def _attend(net, x):
    """Every place attends, head by head, as equations have it; of the answers the mean's is taken."""
    tokens = torch.stack([x.mean((2, 3)), *x.flatten(2).unbind(2)], 1) + net.state["head.pos_embed"]
    q, k, v = (net.linear(f"head.{one}", tokens) for one in ("q", "k", "v"))
    seen = []
    for i in range(0, tokens.shape[2], 64):
        scores = q[:, :, i : i + 64] @ k[:, :, i : i + 64].transpose(1, 2) / 8
        seen.append(scores.softmax(2) @ v[:, :, i : i + 64])
    return net.linear("head.proj", torch.cat(seen, 2)[:, 0])
