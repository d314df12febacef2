"""The service that zmsvc.task.warmup plays. It is of no use to anybody else."""
