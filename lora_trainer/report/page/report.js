"use strict";
document.documentElement.classList.add("js");
const slider = document.getElementById("moment");
if (slider) {
  const shown = document.getElementById("shown");
  const labels = [...document.querySelectorAll("#moments option")].map((option) => option.label);
  const pictures = [...document.querySelectorAll("[data-moment]")];
  const show = () => {
    const label = labels[Number(slider.value)];
    for (const picture of pictures) picture.hidden = picture.dataset.moment !== slider.value;
    shown.textContent = label;
    slider.setAttribute("aria-valuetext", label);
  };
  slider.addEventListener("input", show);
  show();
}
