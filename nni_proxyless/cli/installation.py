"""`nni-proxyless register | schema | doctor | completion`: parses arguments, calls other modules, prints."""

from __future__ import annotations

import argparse
import sys

from ..errors import RunError
from .terminal import write_lines


def register(options: argparse.Namespace) -> int:
    """Add the tuner to NNI's registry, or remove it."""
    from ..nni_bridge import registration

    done = registration.unregister() if options.unregister else registration.register()
    sys.stdout.write(f"tuner {registration.TUNER}: {done}\n")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print the JSON schema of a recipe, or the table of the documentation."""
    import json

    from ..deploy.retrain_recipe import RetrainRecipe
    from ..files.settings import Settings, markdown_table
    from ..search.recipe import Recipe

    kinds: dict[str, type[Settings]] = {"recipe": Recipe, "retrain": RetrainRecipe}
    settings = kinds[options.kind]
    if options.markdown:
        sys.stdout.write(markdown_table(settings) + "\n")
        return 0
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **settings.model_json_schema()}
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Check the installation, and print what was found."""
    from ..nni_bridge import doctor

    findings = doctor.examine(options.port)
    write_lines(*map(str, findings))
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise RunError(f"{errors} problem{'s' if errors > 1 else ''} to fix before a search works")
    return 0


def completion(options: argparse.Namespace) -> int:
    """Print the code by which a shell completes the words of a command line."""
    from argcomplete import shellcode

    sys.stdout.write(shellcode(["nni-proxyless"], shell=options.shell).strip() + "\n")
    return 0
