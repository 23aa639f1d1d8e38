"""stack.sh (or packstack), run detached, followed, and explained when it fails."""
