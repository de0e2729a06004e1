"""Write the JSON schemas of recipes and targets beside the files they describe: ``python tools/schema.py``.

With ``--check`` nothing is written; the exit code is 1 where a file is not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgecv.recipe.schema import recipe_schema, target_schema

ROOT = Path(__file__).resolve().parent.parent


def schema_files() -> dict[Path, str]:
    """Each schema file and the text it must have."""
    schemas: dict[str, dict[str, Any]] = {
        "recipes/recipe.schema.json": recipe_schema(),
        "targets/target.schema.json": target_schema(),
    }
    return {ROOT / name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def main(arguments: list[str]) -> int:
    """Write or check the files; the exit code."""
    stale = [path for path, text in schema_files().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(schema_files()[path])
        print(f"{'stale' if '--check' in arguments else 'written'}: {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
