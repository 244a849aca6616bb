//! Compares the latents and reconstructions of photographs with those of diffusers.

use super::*;

#[test]
fn photographs_have_the_latents_and_reconstructions_of_diffusers() {
    let golden = Golden::open("photographs");
    let vae = Vae::open(Checkpoint::open(&files()).unwrap().vae).unwrap();
    for name in ["astronaut", "china", "flower"] {
        let pixels = golden.get(&format!("{name}.pixels"));
        let [height, width, _] = pixels.dims().unwrap();
        let source = RgbImage::new(width as u32, height as u32, bytes(&pixels)).unwrap();
        let posterior = vae.encode(&source.to_tensor().unwrap(), &never_cancelled).unwrap();
        let value = |part: &str| golden.first(&format!("{name}.{part}"));
        assert_close(&posterior.mean, &value("mean"), COMPONENT_TOLERANCE);
        assert_close(&posterior.log_variance, &value("logvar"), COMPONENT_TOLERANCE);
        let decoded = vae.decode(&vae.normalize(posterior.mean), &never_cancelled).unwrap();
        assert_close(&decoded, &channels_last(&value("decoded")), COMPONENT_TOLERANCE);
    }
}
