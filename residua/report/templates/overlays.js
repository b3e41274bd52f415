"use strict";
(() => {
  const cases = document.getElementById("cases");

  for (const slider of cases.querySelectorAll(".strength")) {
    slider.addEventListener("input", () => {
      cases.style.setProperty("--strength", slider.value / 100);
      slider.nextElementSibling.textContent = `${slider.value}\u00a0%`;
    });
  }

  // The slices of a volume stand under one another; the slider moves the strip behind its window.
  for (const slider of cases.querySelectorAll(".slices input")) {
    const stack = slider.closest(".case").querySelector(".stack");
    const names = stack.dataset.slices.split(" ");
    const depth = slider.nextElementSibling.textContent.split(" of ")[1];
    slider.addEventListener("input", () => {
      stack.style.setProperty("--slice", slider.value);
      slider.nextElementSibling.textContent = `${names[slider.value]} of ${depth}`;
    });
  }

  for (const button of cases.querySelectorAll(".larger")) {
    const figure = button.closest(".case"), stack = figure.querySelector(".stack");
    const [width, height] = getComputedStyle(stack).aspectRatio.split("/").map(Number);
    figure.style.setProperty("--wide", width / height);
    button.addEventListener("click", () => {
      const large = figure.classList.toggle("large");
      button.setAttribute("aria-pressed", String(large));
      button.textContent = large ? "Smaller" : "Larger";
      figure.scrollIntoView({ block: "nearest" });
    });
  }
})();
