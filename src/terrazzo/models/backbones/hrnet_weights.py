"""Names of HRNet's weights in other releases."""

from __future__ import annotations

from terrazzo.models.naming import Naming

NAMINGS = (
    Naming(
        "the HRNet release or timm",
        mark=r"incre_modules\.0\.0\.conv1\.weight",
        drop=r"incre_modules\.|downsamp_modules\.|final_layer\.|classifier\.",
    ),
)
