r"""A page to ask a model about an ECG, and the app of a Space (see docs/app.md); the same as `hf-evl-ecg app`.

    python examples/evl_ecg/app.py --model outputs/demo_ecg/export --teacher outputs/demo_ecg/teacher

On a Space the models are named by the variables EVL_ECG_MODEL and EVL_ECG_TEACHER.
"""

from hf_evl_ecg.commands import app

if __name__ == "__main__":
    try:
        app.command()
    except (ValueError, OSError) as error:  # a model that is not there, a port in use
        raise SystemExit(f"app.py: {error}") from error
