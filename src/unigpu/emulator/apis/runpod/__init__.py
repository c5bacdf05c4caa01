"""RunPod's APIs."""
