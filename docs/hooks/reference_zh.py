"""The pages of the reference in Chinese: titles, introductions and heads of tables; the rest is as in English."""

from __future__ import annotations

from collections.abc import Mapping

from reference import COMMANDS, CONFIG, MODELS, RECIPES, VOCABULARY

# passage of the English pages -> its Chinese; the longer ones come first
PASSAGES = {
    COMMANDS: """\
# 命令

由命令行解析器生成，与 `terrazzo COMMAND --help` 的内容相同（英文）。`python -m terrazzo` 是同一个程序。
退出码为 0（成功）、1（失败）、2（用法有误）和 70（terrazzo 自身的错误）。""",
    CONFIG: """\
# 配置字段

`terrazzo config explain KEY CONFIG` 还会显示字段的值以及设置它的行。未知的字段会报错，并给出最接近的名称。

## 简写配置

用于您自己的图像（[详见](../training.md#简写配置)）。`terrazzo config schema` 写出生成这些表格的 schema。""",
    VOCABULARY: """\
## 1.x 词汇

即 MMSegmentation 1.x 的词汇，任何配置在读取时都会转换为它；`*` 表示字段中的任意部分。模型和变换的参数就是其类的参数
（[模型](models.md)）。""",
    RECIPES: """\
# Recipe

使用 recipe 的名称即可训练：`terrazzo train NAME --data-root data/cityscapes`。`terrazzo recipe show NAME` 输出其配置，
`terrazzo weights get NAME` 下载其公开的权重。系列名也可以写作[简写配置](config.md#简写配置)的 `recipe:`。
名称由各部分组合而成，因此其他组合同样有效。

得分（未注明时为 mIoU；分别为单尺度，以及多尺度加镜像取平均）和训练时每张卡的显存（GB）是 MMSegmentation 公布的数值。
参数量包括辅助头；GFLOPs 为一张裁剪尺寸的图像的计算量，每次乘加计为两次运算
（`terrazzo model info NAME` 显示各部分）。""",
    MODELS: """\
# 模型

## 模型种类及其导出

一种模型是骨干网络、neck 和解码头的一个组合。最后一列是其 ONNX 文件与 torch 原模型的比较结果
（[测量方法](../export-models.md)）；空白表示尚未测量。
`terrazzo export` 总会将导出的文件与原模型比较，不一致时拒绝写出。""",
    "## Types\n\nThe values of `type` in a model's config, as `terrazzo model list` prints them.": (
        "## 类型\n\n模型配置中 `type` 的取值，与 `terrazzo model list` 的输出相同。"
    ),
    "# Python\n\n```python": "# Python 接口\n\n```python",
    "## The functions of `tz`": "## `tz` 的函数",
    "## What they return": "## 返回的类型",
    "## For parts of your own": "## 用于编写自己的部件",
    "## Start here": "## 入门",
    "## Data and configs": "## 数据与配置",
    "## Trained models": "## 训练好的模型",
    "## Training\n": "## 训练\n",
    "### Keys of `data`": "### `data` 的字段",
    "### Keys of `early_stopping`": "### `early_stopping` 的字段",
    "\nExamples:\n": "\n示例：\n",
    "| **required** |": "| **必填** |",
    "| argument |  |": "| 参数 |  |",
    "| key | value | default |  |": "| 字段 | 取值 | 默认值 |  |",
    "| key |  |": "| 字段 |  |",
    "| family | recipes |  |": "| 系列 | recipe 数 |  |",
    "| command | score | averaged | parameters | GFLOPs | GB | weights |": (
        "| 命令 | 得分 | 多尺度平均 | 参数量 | GFLOPs | 显存 (GB) | 权重 |"
    ),
    "| kind | recipes | export |": "| 种类 | recipe 数 | 导出 |",
    "| equal |": "| 一致 |",
    "| equal within rounding |": "| 在舍入误差内一致 |",
    "| type |  |": "| 类型 |  |",
    "### Backbones": "### 骨干网络",
    "### Necks": "### Neck",
    "### Heads": "### 解码头",
    "### Losses": "### 损失函数",
    "### Segmentors": "### Segmentor",
}


def pages(english: Mapping[str, str]) -> dict[str, str]:
    """Path in the site -> Markdown, from the English pages."""
    return {page.replace(".md", ".zh.md"): in_chinese(text) for page, text in english.items()}


def in_chinese(text: str) -> str:
    for passage, chinese in PASSAGES.items():
        text = text.replace(passage, chinese)
    return text
