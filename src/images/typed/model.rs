//! What every generated model is.

use super::Schema;
use crate::Client;

/// A model with a generated typed API. Generated code implements it.
///
/// ```no_run
/// use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
///
/// # fn run(client: &lumenfall::Client) {
/// let request = client.images_for::<StableDiffusion35Medium>().generate("a lighthouse");
/// # }
/// ```
pub trait Model {
    /// The model's schema, for the checks at run time.
    const SCHEMA: &'static Schema;

    /// What the requests start from: it has `generate`, `edit` or both.
    type Requests;

    /// Where the requests to this model through `client` start.
    fn requests(client: &Client) -> Self::Requests;
}
