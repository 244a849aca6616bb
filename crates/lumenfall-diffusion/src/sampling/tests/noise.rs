use super::super::{CudaCard, Noise, NoiseStream};
use super::{Golden, TOLERANCE, assert_close};

const SEEDS: [u64; 2] = [0, u64::MAX - 4];

#[test]
fn noise_of_cuda_equals_that_of_torchs_kernel() {
    let golden = Golden::open();
    let card = CudaCard::Custom { multiprocessors: 1, threads_per_multiprocessor: 511 };
    for seed in SEEDS {
        let mut stream = Noise::TorchCuda(card).stream(seed).unwrap();
        // 2100 values of 256 threads take three rounds, so that the second call starts at a later position.
        assert_close(&stream.normal(2100), golden.get(&format!("cuda.{seed}.first")), TOLERANCE, "first");
        assert_close(&stream.normal(300), golden.get(&format!("cuda.{seed}.second")), TOLERANCE, "second");
    }
    // Printed by torch.manual_seed(0); torch.randn(..., device="cuda").
    let printed = [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284, -1.0745, -0.3631];
    assert_close(&Noise::TorchCuda(CudaCard::T4).stream(0).unwrap().normal(10), &printed, 5e-5, "printed");
}

#[test]
fn cards_agree_up_to_their_number_of_threads() {
    let normal = |card, count| Noise::TorchCuda(card).stream(1).unwrap().normal(count);
    for (card, threads) in
        [(CudaCard::T4, 40_960), (CudaCard::Rtx4090, 196_608), (CudaCard::A100, 221_184), (CudaCard::H100, 270_336)]
    {
        let large = CudaCard::Custom { multiprocessors: 1000, threads_per_multiprocessor: 2048 };
        let (actual, expected) = (normal(card, threads + 1), normal(large, threads + 1));
        assert_eq!(actual[..threads], expected[..threads], "{card:?}");
        assert_ne!(actual[threads], expected[threads], "{card:?}");
    }
    for (multiprocessors, threads_per_multiprocessor) in [(0, 2048), (1, 255)] {
        let card = CudaCard::Custom { multiprocessors, threads_per_multiprocessor };
        assert!(Noise::TorchCuda(card).stream(0).unwrap_err().to_string().contains("multiprocessor"));
    }
}

#[test]
fn portable_noise_has_the_same_bits_everywhere() {
    let golden = Golden::open();
    for seed in SEEDS {
        let expected = golden.get(&format!("portable.{seed}"));
        let mut stream = Noise::Portable.stream(seed).unwrap();
        let actual = [stream.normal(99), stream.normal(100)].concat();
        assert_eq!(actual[..99], expected[..99]);
        // The odd request discarded a value.
        assert_eq!(actual[99..], expected[100..]);
    }
}

#[test]
fn every_stream_is_normal_and_continues() {
    let card = CudaCard::Custom { multiprocessors: 2, threads_per_multiprocessor: 1024 };
    for noise in [Noise::TorchCpu, Noise::TorchCuda(card), Noise::Portable] {
        let mut stream: NoiseStream = noise.stream(3).unwrap();
        let (first, second) = (stream.normal(20_000), stream.normal(20_000));
        assert_ne!(first, second, "{noise:?}");
        assert!(stream.normal(0).is_empty());
        for values in [first, second] {
            let mean = values.iter().sum::<f32>() / 20_000.0;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 20_000.0;
            assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{noise:?}: {mean}, {variance}");
        }
    }
}
