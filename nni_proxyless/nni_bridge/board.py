"""TensorBoard as NNI's web UI starts it, except that it ends with the manager. `loopback.cjs` starts it."""

from __future__ import annotations

from .watchdog import end_with_the_manager


def main() -> None:
    """Run TensorBoard with the arguments of this process."""
    end_with_the_manager()
    from tensorboard.main import run_main

    run_main()


if __name__ == "__main__":
    main()
