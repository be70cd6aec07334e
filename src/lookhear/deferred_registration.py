"""
Delays the registration until transformers' Auto classes or `pipeline` are used.

The registration needs torch and our networks, which take seconds to load; `import lookhear` takes milliseconds. The
difference shows in nothing but time: code that takes a name out of a module of [`REGISTRIES`] finds our classes
registered.

It is the taking of a name that registers, not the end of the module's import, as then other modules of transformers
may be half loaded, and locks of the import system are held that another thread may wait for. So a finder of modules
(`sys.meta_path`) gives these modules, when they have been loaded, a class of their own, as Python's data model
provides for ("Customizing module attribute access"), until the registration is done.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Where transformers keeps the Auto classes, their mappings, and the tasks of `pipeline`.
REGISTRIES = {
    "transformers.models.auto.auto_factory",
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.feature_extraction_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.pipelines",
}
# Our own modules keep names of transformers that they took while they were loaded: registered before they are loaded.
OURS = {"lookhear.modeling", "lookhear.processing"}


def defer_registration() -> None:
    """Registers with transformers when it is needed: immediately if an Auto class may be in use already."""
    sys.meta_path.insert(0, _FINDER)
    loaded = REGISTRIES & sys.modules.keys()
    for name in loaded:
        sys.modules[name].__class__ = _Registry
    if loaded and not _transformers_is_loading():
        register()


def register() -> None:
    """Registers all our classes; does nothing if that has been done, or is being done by this thread."""
    importlib.import_module(
        "lookhear.registration"
    )  # once per process: other threads wait for the import system's lock


def end_deferral() -> None:
    """Gives transformers' modules their own class back once the registration is done."""
    sys.meta_path.remove(_FINDER)
    for name in REGISTRIES & sys.modules.keys():
        sys.modules[name].__class__ = ModuleType


class _Registry(ModuleType):
    """A module of transformers that registers our classes before it gives away a name."""

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("__") and not _transformers_is_loading():
            register()
        return ModuleType.__getattribute__(self, name)  # not super(): by now this may be a plain module again


class _RegistryFinder(MetaPathFinder):
    """Finds the modules that matter as the other finders do, and gives them a loader that watches them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTRIES | OURS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _RegistryLoader(spec.loader)
                return spec
        return None


class _RegistryLoader(Loader):
    """Loads a module as its own loader does, then watches it, or registers if it is one of ours."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader  # so that `inspect` and the like find the source
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if module.__name__ in OURS:
            register()
        elif _FINDER in sys.meta_path:
            module.__class__ = _Registry


_FINDER = _RegistryFinder()


def _transformers_is_loading() -> bool:
    """Returns whether this thread is importing a module of transformers, which may not have all its names yet."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").split(".")[0] == "transformers":
            return True
        frame = frame.f_back
    return False
