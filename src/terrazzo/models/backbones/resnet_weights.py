"""Names of ResNet's, ResNeXt's and ResNeSt's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming

CLASSIFIER = r"fc\.|head\.|neck\."

NAMINGS = (
    Naming(
        "timm or the ResNeSt release (a deep stem)",
        mark=r"conv1\.0\.weight",
        rules=((r"^conv1\.", "stem."), (r"^bn1\.", "stem.7.")),
        drop=CLASSIFIER,
    ),
    Naming(
        "MMPretrain (a deep stem)",
        mark=r"stem\.0\.conv\.weight",
        rules=(
            (r"^stem\.(\d)\.conv\.", lambda match: f"stem.{3 * int(match[1])}."),
            (r"^stem\.(\d)\.bn\.", lambda match: f"stem.{3 * int(match[1]) + 1}."),
        ),
        drop=CLASSIFIER,
    ),
    Naming("torchvision or timm", mark=r"fc\.weight", drop=CLASSIFIER),
)
