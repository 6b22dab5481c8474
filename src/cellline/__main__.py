"""The command `cellline`, which pip installs: it runs a verb's script, as make does."""

import re
import runpy
import sys

from cellline.host.sources import VERBS


def main() -> None:
    """Run the verb that the first argument names, with the others; without one, list the verbs.

    An unknown verb ends with status 2 and a line on stderr.
    """
    verbs = list_verbs()
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print("usage: cellline VERB [SETTINGS]; cellline VERB --help lists its settings\n")
        for name, purpose in verbs.items():
            print(f"  cellline {name:8} {purpose}")
    elif verb in verbs:
        # The script finds the arguments where it would if Python had started it.
        del sys.argv[0]
        runpy.run_path(str(VERBS / f"{verb}.py"), run_name="__main__")
    else:
        print(f"error: unknown verb {verb!r}; the verbs are {', '.join(verbs)}", file=sys.stderr)
        sys.exit(2)


def list_verbs() -> dict[str, str]:
    """The verbs' names, and the purpose that the first line of each script tells."""
    heads = (path.read_text(encoding="utf-8").split("\n", 1)[0] for path in VERBS.glob("*.py"))
    told = (re.fullmatch(r'"""make (\w+): (.+)\."""', head) for head in sorted(heads))
    return {match[1]: match[2] for match in told if match}


if __name__ == "__main__":
    main()
