"""Stand-in for `folder_paths`: the registry of model folders under a temporary base."""

from __future__ import annotations

import os
import tempfile

base_path = tempfile.mkdtemp(prefix="comfy-stand-in-")
models_dir = os.path.join(base_path, "models")
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Register one more folder under a name."""
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path not in paths:
        paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """Folders registered under a name."""
    return folder_names_and_paths[folder_name][0][:]


def get_filename_list(folder_name: str) -> list[str]:
    """Files in the folders of a name, relative to them."""
    found: set[str] = set()
    for folder in get_folder_paths(folder_name):
        for parent, _, files in os.walk(folder, followlinks=True):
            found.update(os.path.relpath(os.path.join(parent, file), folder) for file in files)
    return sorted(found)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """Full path of a file in the folders of a name."""
    filename = os.path.relpath(os.path.join("/", filename), "/")
    for folder in get_folder_paths(folder_name):
        path = os.path.join(folder, filename)
        if os.path.isfile(path):
            return path
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """Full path of a file in the folders of a name; FileNotFoundError without it."""
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")
    return path


def _directory(name: str) -> str:
    path = os.path.join(base_path, name)
    os.makedirs(path, exist_ok=True)
    return path


def get_output_directory() -> str:
    """Where results are saved."""
    return _directory("output")


def get_temp_directory() -> str:
    """Where previews are saved."""
    return _directory("temp")


def get_input_directory() -> str:
    """Where pictures to load lie."""
    return _directory("input")
