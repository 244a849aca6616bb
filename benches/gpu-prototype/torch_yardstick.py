"""The same products with torch on the same GPU, as a yardstick."""

import torch, torch.nn.functional as F

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.set_grad_enabled(False)


def ms(f, n=20):
    for _ in range(3):
        f()
    e = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
    for a, b in e:
        a.record()
        f()
        b.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in e)[n // 2]


S = [
    (333, 1536, 6144),
    (1024, 1536, 1536),
    (1024, 1536, 6144),
    (1024, 6144, 1536),
    (4096, 1536, 6144),
    (4096, 6144, 1536),
]
for name, t in (("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)):
    row = ""
    for m, k, n in S:
        x, w, b = (torch.randn(*s, device="cuda", dtype=t) for s in ((m, k), (n, k), (n,)))
        row += f" {2 * m * k * n / ms(lambda: F.linear(x, w, b)) / 1e9:8.1f}"
    print(f"{'torch linear ' + name:28s}{row}")
for t in (1357, 4429):
    q = torch.randn(1, 24, t, 64, device="cuda", dtype=torch.float16)
    v = ms(lambda: F.scaled_dot_product_attention(q, q, q))
    print(f"{f'torch attention f16 {t}':28s} {4 * t * t * 1536 / v / 1e9:8.1f} TFLOP/s {v:.2f} ms")
for s, c in ((64, 512), (512, 128)):
    for d in (torch.float32, torch.float16):
        x = torch.randn(1, c, s, s, device="cuda", dtype=d).to(memory_format=torch.channels_last)
        w = torch.randn(c, c, 3, 3, device="cuda", dtype=d).to(memory_format=torch.channels_last)
        v = ms(lambda: F.conv2d(x, w, padding=1))
        print(
            f"{f'torch conv {c}ch {s}x{s} {str(d)[6:]}':28s} {2 * s * s * c * c * 9 / v / 1e9:8.1f} TFLOP/s {v:.2f} ms"
        )
