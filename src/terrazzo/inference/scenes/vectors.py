"""Files of polygons with columns: GeoPackage, GeoJSON and GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.system.extras import import_extra
from terrazzo.system.files import write_atomically


def save_with_ogr(path: Path, outlines: np.ndarray, columns: Mapping[str, np.ndarray], crs: Any) -> None:
    """Write GeoPackage, or GeoJSON in degrees (RFC 7946). Raises UserError where the file cannot be written."""
    pyogrio = import_extra("pyogrio", "geo", "files of polygons")
    import shapely

    is_json = path.suffix.lower() == ".geojson"
    options = {"RFC7946": "YES"} if is_json else {}
    is_simple = all(outline.geom_type == "Polygon" for outline in outlines)

    def write(temporary: Path) -> None:
        named = temporary.with_name(f"{temporary.name}{path.suffix}")  # by which OGR and SQLite go
        try:
            pyogrio.raw.write(
                named,
                shapely.to_wkb(outlines),
                list(columns.values()),
                list(columns),
                layer=path.stem,
                driver="GeoJSON" if is_json else "GPKG",
                geometry_type="Polygon" if is_simple else "MultiPolygon",
                promote_to_multi=not is_simple,
                crs=crs.to_wkt(),
                **options,
            )
            named.replace(temporary)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.GeometryError, pyogrio.errors.FeatureError) as problem:
            raise OSError(None, str(problem).strip().splitlines()[0]) from problem
        finally:
            named.unlink(missing_ok=True)

    write_atomically(path, write)


def save_parquet(path: Path, outlines: np.ndarray, columns: Mapping[str, np.ndarray], crs: Any) -> None:
    """Write GeoParquet 1.1. Raises UserError where the file cannot be written."""
    pyarrow = import_extra("pyarrow", "parquet", "GeoParquet files")
    parquet = import_extra("pyarrow.parquet", "parquet", "GeoParquet files")
    import shapely

    kinds = sorted({outline.geom_type for outline in outlines})
    geometry = {"encoding": "WKB", "geometry_types": kinds, "crs": crs.to_dict(projjson=True)}
    about = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    arrays = {name: pyarrow.array(values) for name, values in columns.items()}
    table = pyarrow.table(arrays | {"geometry": pyarrow.array(shapely.to_wkb(outlines), pyarrow.binary())})
    table = table.replace_schema_metadata({"geo": json.dumps(about)})
    write_atomically(path, lambda temporary: parquet.write_table(table, temporary, compression="zstd"))


WRITERS: dict[str, Callable[..., None]] = {
    ".gpkg": save_with_ogr,
    ".geojson": save_with_ogr,
    ".parquet": save_parquet,
}
