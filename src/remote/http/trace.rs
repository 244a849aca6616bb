//! The W3C header `traceparent`, from which the gateway reads the trace of a request. Feature `otel`.

use opentelemetry::Context;
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Adds the active span to `headers`: that of `tracing`, or else that of OpenTelemetry.
///
/// The format is always W3C, whatever global propagator the application has set: the gateway supports no other, and the
/// baggage of other propagators must not be sent to it.
pub(crate) fn inject(headers: &mut HeaderMap) {
    let spans = Span::current().context();
    let context = if spans.has_active_span() { spans } else { Context::current() };
    TraceContextPropagator::new().inject_context(&context, &mut Headers(headers));
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, name: &str, value: String) {
        // An empty `tracestate` has no meaning.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}
