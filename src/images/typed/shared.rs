//! The methods that every generated builder has, regardless of its schema.

/// Emits the setter of local options, regardless of the features of the crate that contains the builder.
#[cfg(feature = "local")]
#[doc(hidden)]
#[macro_export]
macro_rules! local_method {
    () => {
        /// Sets the options of the local backend, and replaces those that were set before. Other backends reject them by name.
        pub fn local(mut self, options: $crate::local::LocalOptions) -> Self {
            self.draft.options_mut().local = options;
            self
        }
    };
}

/// Emits nothing without the feature `local`.
#[cfg(not(feature = "local"))]
#[doc(hidden)]
#[macro_export]
macro_rules! local_method {
    () => {};
}

/// Emits the methods of every builder, and the listed setters. The code generator omits the setters of parameters that the
/// model's schema contains.
#[doc(hidden)]
#[macro_export]
macro_rules! shared_methods {
    ($spec:ty; $($setter:ident)*) => {
        /// Sets a parameter that is not in the model's schema. It is sent unchanged.
        pub fn extra(
            mut self,
            name: impl ::core::convert::Into<::std::string::String>,
            value: impl ::core::convert::Into<$crate::images::typed::Value>,
        ) -> Self {
            self.draft.options_mut().extra.insert(name.into(), value.into());
            self
        }

        /// Sets all controls of the diffusion process, and replaces the controls that were set before.
        pub fn sampling(mut self, sampling: $crate::Sampling) -> Self {
            self.draft.options_mut().sampling = sampling;
            self
        }

        $crate::local_method!();

        /// Limits the duration of the whole call, including retries, from the call of `send()`.
        pub fn timeout(mut self, timeout: ::core::time::Duration) -> Self {
            self.draft = self.draft.timeout(timeout);
            self
        }

        /// Sets a callback for progress events. It can be called from any thread and must return quickly.
        pub fn on_progress(
            mut self,
            progress: impl Fn($crate::backend::Progress) + Send + Sync + 'static,
        ) -> Self {
            self.draft = self.draft.on_progress(progress);
            self
        }

        /// Lets `cancellation` cancel the request from another task or thread.
        pub fn cancel_with(mut self, cancellation: &$crate::Cancellation) -> Self {
            self.draft = self.draft.cancel_with(cancellation);
            self
        }

        /// Adds a header to the API requests of a remote backend; other backends ignore it. Its value is a secret.
        pub fn header(
            mut self,
            name: impl ::core::convert::Into<::std::string::String>,
            value: impl ::core::convert::Into<::std::string::String>,
        ) -> Self {
            self.draft = self.draft.header(name, value);
            self
        }

        /// Replaces the retry policy of the backend.
        pub fn retry(mut self, policy: $crate::RetryPolicy) -> Self {
            self.draft = self.draft.retry(policy);
            self
        }

        /// Converts the builder into a draft, whose parameters can be set under a condition or in a loop. The draft keeps the
        /// timeout, the progress callback and the delivery.
        pub fn into_draft(self) -> $crate::images::typed::Draft<$spec, Delivery> {
            self.draft
        }

        /// Computes the price from the published prices in the schema, without a request: that of the pinned provider, or
        /// else that of the most expensive one.
        ///
        /// # Errors
        /// `InvalidRequest` if a value violates a rule of the model, `Unsupported` if the schema contains no price.
        pub fn published_price(&self) -> ::core::result::Result<$crate::backend::Estimate, $crate::Error> {
            self.draft.published_price()
        }

        /// Asks the backend for the price of the request. No images are generated.
        ///
        /// # Errors
        /// `InvalidRequest` if a value violates a rule of the model, `Unsupported` if the backend has no price estimates,
        /// and any error of the backend.
        pub async fn estimate(self) -> ::core::result::Result<$crate::backend::Estimate, $crate::Error> {
            self.draft.estimate().await
        }

        /// Sends the request. Dropping the future cancels the call.
        ///
        /// # Errors
        /// `InvalidRequest` if a value violates a rule of the model, and any error of the backend.
        pub async fn send(self) -> ::core::result::Result<$crate::Images<Delivery>, $crate::Error>
        where
            Delivery: $crate::images::Delivery,
        {
            self.draft.send().await
        }

        $($crate::shared_methods!(@ $setter);)*
    };
    (@ user) => {
        /// Sets an identifier for the end user, in a form of your choice.
        pub fn user(mut self, user: impl $crate::images::typed::Text) -> Self {
            self.draft.options_mut().user = Some(user.into_text());
            self
        }
    };
    (@ seed) => {
        $crate::shared_methods!(@ "Sets the seed of the noise. The same seed generates the same image." seed: u64);
    };
    (@ steps) => {
        $crate::shared_methods!(@ "Sets the number of denoising steps, 1 or more." steps: u32);
    };
    (@ guidance) => {
        $crate::shared_methods!(
            @ "Sets the scale of classifier-free guidance, 0 or more. 1 turns guidance off." guidance: f32
        );
    };
    (@ strength) => {
        $crate::shared_methods!(
            @ "Sets how much the edit may change the image: above 0 (hardly) to 1 (completely)." strength: f32
        );
    };
    (@ $doc:literal $control:ident: $type:ty) => {
        #[doc = $doc]
        pub fn $control(mut self, $control: $type) -> Self {
            self.draft.options_mut().sampling.$control = Some($control);
            self
        }
    };
    (@ negative_prompt) => {
        /// Sets a text that describes what the image must not show.
        pub fn negative_prompt(mut self, text: impl $crate::images::typed::Text) -> Self {
            self.draft.options_mut().sampling.negative_prompt = Some(text.into_text());
            self
        }
    };
}
