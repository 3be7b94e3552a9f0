"""Recipes for a cluster: Dockerfile, KubeRay manifests, storage policies. README, "Overnight on a cluster"."""
