"""All parts of `make gpu`, most important first."""

from __future__ import annotations

from gpu_parts import feed, machine, networks, peers, ray_job, right, roofline, startup, stress, with_onnx
from gpu_parts.part import Part

PARTS: dict[str, Part] = {
    "machine": Part("ceilings and tools of this machine", 15, machine.ceilings),
    "kernels": Part("the kernels' tests on the GPU", 120, right.kernel_tests),
    "bits": Part("equal bits by two processes, in two orders, compiled and not", 80, right.same_bits),
    "row_stats": Part("row statistics at T=20 against the roofline", 170, roofline.of_20_passes),
    "frontier": Part("ResNet-50, batch 1024, T=1, 20, 100", 200, networks.resnet_of_1024),
    "feed_256": Part("ResNet-50 at T=100 from JPEGs of 20 KB", 110, feed.small_jpegs),
    "soak": Part("the two-phase kernel, again and again", 50, stress.soak),
    "cpu": Part("scores of the GPU beside those of the CPU", 110, right.against_cpu),
    "ray": Part("the main job through Ray, killed and resumed", 150, ray_job.killed_and_resumed),
    "sanitizer": Part("memcheck and racecheck over the kernels", 120, stress.sanitizer),
    "vit": Part("ViT-B/16 with dropout everywhere, T=20", 130, networks.vit),
    "feed_500": Part("ResNet-50 at T=100 from JPEGs of 110 KB", 120, feed.large_jpegs),
    "startup": Part("seconds to the first scores", 130, startup.seconds_to_first_scores),
    "decoders": Part("nvJPEG beside the CPU's decoders", 40, feed.decoders),
    "row_stats_100": Part("row statistics at T=100", 170, roofline.of_100_passes),
    "feed_tensors": Part("ResNet-50 at T=100 from uint8 tensors", 110, feed.tensors),
    "peers": Part("beside loops by hand and Ray Data", 240, peers.side_by_side),
    "frontier_256": Part("ResNet-50, batch 256", 180, networks.resnet_of_256),
    "onnx": Part("ONNX Runtime's CUDA provider beside torch", 90, with_onnx.agrees_with_torch),
}
