# Sourced by the recipes' scripts and tools/test.sh: activates a Python environment with requirements.txt installed.
# It creates .venv in the repository's root unless an environment is active, and installs only after a change of
# requirements.txt or pyproject.toml, or after another copy of the repository was installed there. SKIP_SETUP=1 takes
# the environment as it is, such as that of a container.

[ -z "${SKIP_SETUP:-}" ] || return 0

_root=$(CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
  if [ ! -e "$_root/.venv/bin/activate" ]; then
    _python=${PYTHON:-python3}
    if ! "$_python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
      echo "$_python is $("$_python" --version 2>&1); this repository is tested with Python 3.10 to 3.12." \
        "Choose another one: PYTHON=python3.11 $0" >&2
      return 1
    fi
    echo "Creating a virtual environment in $_root/.venv"
    if ! "$_python" -m venv "$_root/.venv"; then
      rm -rf "$_root/.venv"
      echo "No virtual environment could be made: see above, or activate one of your own" >&2
      return 1
    fi
  fi
  . "$_root/.venv/bin/activate"
fi

_env=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
_installed=$_env/.summarymix-installed
_content=$(cat "$_root/requirements.txt" "$_root/pyproject.toml" <(echo "$_root") | sha256sum | cut -c1-16)
if [ ! -e "$_installed" ] || [ "$(cat "$_installed")" != "$_content" ]; then
  _wanted=$(mktemp)
  if _torch=$(python -c 'import torch; print(torch.__version__)' 2>/dev/null); then
    echo "Keeping torch $_torch of $_env (tested: $(grep '^torch==' "$_root/requirements.txt"))"
    grep -v '^torch\(audio\)\?==' "$_root/requirements.txt" >"$_wanted"
  else
    cp "$_root/requirements.txt" "$_wanted"
  fi
  echo "Installing requirements.txt into $_env (with torch: some 5 GB, a minute or more)"
  # In the root, because "-e ." in the list is the current folder.
  if ! (cd "$_root" && python -m pip install --quiet --disable-pip-version-check -r "$_wanted"); then
    rm -f "$_wanted"
    echo "requirements.txt is not installed: see above; the same command tries again" >&2
    return 1
  fi
  rm -f "$_wanted"
  echo "$_content" >"$_installed"
fi
unset _root _python _env _installed _content _wanted _torch
