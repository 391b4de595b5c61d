"""Python imports this at its start: in the processes of these tests, the toy model counts as trusted."""

import sys

sys.dont_write_bytecode = True


class _Trust:
    """Waits for medtwin.config, which must not be loaded before the command line wants it."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "hydra" and "medtwin.config" in sys.modules:
            config = sys.modules["medtwin.config"]
            config.TRUSTED_PACKAGES = (*config.TRUSTED_PACKAGES, "tests")
            sys.meta_path.remove(self)


sys.meta_path.insert(0, _Trust())
