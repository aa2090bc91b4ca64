# Sourced by the other scripts: makes .venv and installs specpolicy into it, once.
# Usage: source scripts/setup.sh run    packages for collecting, training and evaluating
#        source scripts/setup.sh test   all extras, the projects that tests compare with, test runner and linters
# PYTHON names the interpreter (default python3); pip's usual variables and configuration apply.

profile="$1"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="$root/.venv"
python="${PYTHON:-python3}"
stamp="$venv/.installed-$profile-$(cat pyproject.toml scripts/setup.sh | cksum | cut -d' ' -f1)"

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

if [ ! -e "$stamp" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || {
        echo "setup: the simulators need Python 3.11 or 3.12, this is $("$python" --version): set PYTHON=/path/to/python" >&2
        exit 2
    }
    echo "setup: installing into $venv ($profile); a first time takes some minutes" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # torch first and alone, so that no other package installs another build of it.
    install torch==2.13.0
    if [ "$profile" = test ]; then
        # robomimic needs egl_probe, whose old build script needs cmake, its compatibility switch and no isolation.
        install cmake setuptools wheel
        PATH="$venv/bin:$PATH" CMAKE_POLICY_VERSION_MINIMUM=3.5 install --no-build-isolation egl_probe
        install torchvision==0.28.0 -e '.[all,dev]'
    else
        install -e '.[cli,sim,train,report]'
    fi
    # robosuite's OpenCV needs desktop libraries; without them its headless build works as well.
    "$venv/bin/python" -c 'import cv2' 2>/dev/null ||
        install --force-reinstall --no-deps opencv-python-headless==4.11.0.86
    # Videos need OpenGL through EGL. Without it everything else works.
    if ! ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1' && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        (apt-get update -qq && apt-get install -y -qq --no-install-recommends libegl1 libgl1-mesa-dri) >/dev/null 2>&1 ||
            echo "setup: no OpenGL library could be installed, there will be no videos" >&2
    fi
    touch "$stamp"
fi
export PATH="$venv/bin:$PATH"
