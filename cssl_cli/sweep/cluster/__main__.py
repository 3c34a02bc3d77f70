"""What a job starts, `python -m cssl_cli.sweep.cluster FOLDER`: submitit, with signals put off until `run_job`.

Its imports take seconds, and before them a notice of the cluster would end the process, which nobody queues again.
"""

from __future__ import annotations

import signal
import sys

from cssl_cli.host.signals import ENDING

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    from submitit.core.submission import process_job

    process_job(sys.argv[-1])  # submitit puts its own module's name in front
