use lumenfall::Error;
use lumenfall::remote::{Fal, Remote, Replay};

fn gateway_header_on_fal(replay: Replay) {
    let _ = Fal::builder().api_key("key").replay(replay);
}

fn fal_settings_for_the_gateway() -> Result<Remote, Error> {
    Fal::builder().api_key("key").build()
}

fn main() {}
