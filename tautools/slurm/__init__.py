"""Slurm: job scripts that a person can read, the states of jobs, and what Slurm means by its reasons.

::

    slurm = Slurm()
    slurm.test_only(text)          # would it be taken, and when would it start
    job_id = slurm.submit(path)
    slurm.jobs([job_id])           # one query for all
    slurm.cancel(job_id)
"""
