//! The methods that every generated builder has, whatever its schema says.

/// Adds the shared methods to a generated builder: those that are always there, and the setters
/// listed, which leave out what the model's own schema names.
#[doc(hidden)]
#[macro_export]
macro_rules! shared_methods {
    ($spec:ty; $($setter:ident)*) => {
        /// A parameter that the model's schema does not name, sent as it is.
        pub fn extra(
            mut self,
            name: impl ::core::convert::Into<::std::string::String>,
            value: impl ::core::convert::Into<$crate::images::typed::Value>,
        ) -> Self {
            self.draft.spec_mut().options.extra.insert(name.into(), value.into());
            self
        }

        /// All the controls of the diffusion process at once. Replaces what was set before.
        pub fn sampling(mut self, sampling: $crate::Sampling) -> Self {
            self.draft.spec_mut().options.sampling = sampling;
            self
        }

        /// How long the whole call may take, retries included, from `send()` on.
        pub fn timeout(mut self, timeout: ::core::time::Duration) -> Self {
            self.draft = self.draft.timeout(timeout);
            self
        }

        /// Calls `progress` for each step of the work, from whatever thread does it.
        pub fn on_progress(
            mut self,
            progress: impl Fn($crate::backend::Progress) + Send + Sync + 'static,
        ) -> Self {
            self.draft = self.draft.on_progress(progress);
            self
        }

        /// The request as plain data, to change it in a loop or under an `if`.
        pub fn into_spec(self) -> $spec {
            self.draft.into_spec()
        }

        /// What the request costs by the published prices, computed here without asking anybody: at the provider
        /// that is pinned, or else at the dearest.
        ///
        /// # Errors
        /// Where a value known only at run time breaks a rule of the model, or no price applies.
        pub fn published_price(&self) -> ::core::result::Result<$crate::backend::Estimate, $crate::Error> {
            self.draft.published_price()
        }

        /// What the request would cost, as the backend says. Nothing is made.
        ///
        /// # Errors
        /// Where the request breaks a rule of the model, or the backend cannot tell.
        pub async fn estimate(self) -> ::core::result::Result<$crate::backend::Estimate, $crate::Error> {
            self.draft.estimate().await
        }

        /// Sends the request. Dropping the future stops the work.
        ///
        /// # Errors
        /// Where a value known only at run time breaks a rule of the model, and whatever the
        /// backend runs into.
        pub async fn send(self) -> ::core::result::Result<$crate::Images<Answer>, $crate::Error>
        where
            Answer: $crate::images::Delivery,
        {
            self.draft.send().await
        }

        $($crate::shared_methods!(@ $setter);)*
    };
    (@ user) => {
        /// Your own name for the end user.
        pub fn user(mut self, user: impl ::core::convert::Into<::std::string::String>) -> Self {
            self.draft.spec_mut().options.user = Some(user.into());
            self
        }
    };
    (@ seed) => {
        /// Where the noise starts from: the same seed makes the same image.
        pub fn seed(mut self, seed: u64) -> Self {
            self.draft.spec_mut().options.sampling.seed = Some(seed);
            self
        }
    };
    (@ steps) => {
        /// How many denoising steps, 1 or more.
        pub fn steps(mut self, steps: u32) -> Self {
            self.draft.spec_mut().options.sampling.steps = Some(steps);
            self
        }
    };
    (@ guidance) => {
        /// Scale of classifier-free guidance, 0 or more; 1 turns it off.
        pub fn guidance(mut self, guidance: f32) -> Self {
            self.draft.spec_mut().options.sampling.guidance = Some(guidance);
            self
        }
    };
    (@ negative_prompt) => {
        /// What the image is not to show.
        pub fn negative_prompt(mut self, text: impl ::core::convert::Into<::std::string::String>) -> Self {
            self.draft.spec_mut().options.sampling.negative_prompt = Some(text.into());
            self
        }
    };
    (@ strength) => {
        /// How far the edit may move away from its source, above 0 (hardly) to 1 (entirely).
        pub fn strength(mut self, strength: f32) -> Self {
            self.draft.spec_mut().options.sampling.strength = Some(strength);
            self
        }
    };
    (@ no_strength) => {
        #[doc(hidden)]
        pub fn strength<T: $crate::images::typed::StrengthInTextToImage>(self, _: T) -> Self {
            self
        }
    };
}
