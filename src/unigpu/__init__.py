"""One client for serverless GPUs, whose elasticity you can trust."""
