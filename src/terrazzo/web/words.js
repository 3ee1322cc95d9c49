// The words of the page in English and Chinese: elements name theirs in data-words, and in data-title and data-aria.
const WORDS = {
  choose: ["Choose images", "选择图片"],
  webcam: ["Webcam", "摄像头"],
  paste: ["Paste", "粘贴"],
  drop: ["or drop images anywhere", "或将图片拖到页面任意位置"],
  dropHere: ["Drop an image here", "将图片拖到这里"],
  stays: ["Nothing that you open leaves this page.", "您打开的图片不会离开本页面。"],
  sent: ["Images are sent to this server.", "图片会发送到本服务器。"],
  opacity: ["Opacity", "不透明度"],
  confidence: ["Least confidence", "最低置信度"],
  split: ["Image | labels", "原图 | 标签"],
  all: ["All classes", "显示全部类别"],
  none: ["No classes", "隐藏全部类别"],
  saveLabels: ["Save labels", "保存标签"],
  saveOverlay: ["Save overlay", "保存叠加图"],
  greyTitle: ["PNG whose grey value is the number of the class; 255 is unsure", "灰度值为类别编号的 PNG，255 表示不确定"],
  computedWith: ["Computed with", "计算方式"],
  model: ["Model", "模型"],
  about: ["About this model", "关于此模型"],
  language: ["Language", "语言"],
  unsure: ["unsure", "不确定"],
  off: ["off", "关"],
  classes: ["classes", "个类别"],
  correct: ["Correct", "修正"],
  brush: ["Brush", "画笔"],
  fill: ["Fill region", "填充区域"],
  undo: ["Undo", "撤销"],
  keep: ["Keep", "保存到数据集"],
  size: ["Size", "大小"],
  class: ["Class", "类别"],
  tool: ["Tool", "工具"],
  zoomIn: ["Zoom in", "放大"],
  zoomOut: ["Zoom out", "缩小"],
  fit: ["Whole image", "适应窗口"],
  keys: ["Keys", "快捷键"],
  keysAbout: [
    "+ − 0: zoom; arrows: pan; page up and down: other images; space: labels on and off; c: correct; b, f: brush, fill; [ ]: size; Ctrl+Z: undo",
    "+ − 0：缩放；方向键：平移；PageUp/PageDown：切换图片；空格：显示或隐藏标签；c：修正；b、f：画笔、填充；[ ]：大小；Ctrl+Z：撤销",
  ],
  ready: ["Ready.", "就绪。"],
  computing: ["computing …", "计算中…"],
  pixels: ["pixels", "像素"],
  shrunk: ["shrunk", "已缩小"],
  with: ["with", "，使用"],
  notAnImage: ["this is not an image that the browser can read", "浏览器无法读取该图片"],
  noClipboardImage: ["The clipboard contains no image.", "剪贴板中没有图片。"],
  pressPaste: ["Press Ctrl+V to paste an image here.", "请按 Ctrl+V 粘贴图片。"],
  noWebcam: ["The webcam cannot be opened", "无法打开摄像头"],
  cannotStart: ["The model cannot be started", "无法启动模型"],
  pasted: ["pasted image", "粘贴的图片"],
  image: ["Image", "图片"],
  images: ["Images", "图片列表"],
  settings: ["Settings", "设置"],
  result: ["Result", "结果"],
  progress: ["Computing", "计算中"],
  kept: ["kept as", "已保存为"],
  done: ["done", "已完成"],
  unlike: ["unlike the training images", "与训练图片差异较大"],
  token: ["This server needs its token:", "此服务器需要访问令牌："],
};
const LANGUAGES = { en: "English", zh: "中文" };
let chosen = 0;

export const word = (name) => WORDS[name][chosen];

// A text with characters that would reorder its line, or control a terminal, as escapes.
export const printable = (text) =>
  text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

export function speak(language) {
  chosen = Math.max(0, Object.keys(LANGUAGES).indexOf(language));
  document.documentElement.lang = Object.keys(LANGUAGES)[chosen];
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = word(element.dataset.words);
  for (const element of document.querySelectorAll("[data-title]")) element.title = word(element.dataset.title);
  for (const element of document.querySelectorAll("[data-aria]")) {
    element.setAttribute("aria-label", word(element.dataset.aria));
  }
}

// Fills the choice of languages; `onChange` draws what is not in the page's text.
export function offerLanguages(select, onChange) {
  for (const [language, name] of Object.entries(LANGUAGES)) select.append(new Option(name, language));
  let remembered = null;
  try {
    remembered = localStorage.getItem("terrazzo-language");
  } catch {} // pages from a disk may have no storage
  select.value = remembered ?? (navigator.language?.startsWith("zh") ? "zh" : "en");
  select.onchange = () => {
    try {
      localStorage.setItem("terrazzo-language", select.value);
    } catch {}
    speak(select.value);
    onChange();
  };
  speak(select.value);
}
