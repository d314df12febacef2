"""The service that zmsvc.task.rehearsal plays. It is of no use to anybody else."""
