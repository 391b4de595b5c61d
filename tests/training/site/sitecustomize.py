"""Python imports this at its start: in the processes of these tests, the toy model counts as trusted."""

import sys
from importlib.machinery import PathFinder

sys.dont_write_bytecode = True


class _Trust:
    """Waits for medtwin.config, which must not be loaded before the command line, or a job of it, wants it."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name != "medtwin.config":
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_trust(module: object) -> None:
            load(module)
            module.TRUSTED_PACKAGES = (*module.TRUSTED_PACKAGES, "tests")

        spec.loader.exec_module = load_and_trust
        return spec


sys.meta_path.insert(0, _Trust())
