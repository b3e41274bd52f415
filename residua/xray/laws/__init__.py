"""What a healthy network at initialisation should measure, as closed forms that a test can hold it against.

moments         the second moment and the batch variance of the trunk, block by block
explosion       the gradient of plain networks with batch norm, at any batch size
correlation     how alike two inputs' gradients are, by depth: published laws and the arc-cosine recursion
random_weights  what norms, angles and singular values of fresh weights are
noise           the autocorrelation of white and of brown noise, with its sampling error
"""
