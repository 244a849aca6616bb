//! The W3C header `traceparent`, by which the gateway tells a request's trace. Feature `otel`.

use opentelemetry::Context;
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Names the active span in `headers`: that of `tracing`, or else OpenTelemetry's own.
///
/// It is always the W3C form, whatever the application set as its global propagator: the gateway knows no other, and
/// the baggage that others carry is nobody else's business.
pub(super) fn inject(headers: &mut HeaderMap) {
    let spans = Span::current().context();
    let context = if spans.has_active_span() { spans } else { Context::current() };
    TraceContextPropagator::new().inject_context(&context, &mut Headers(headers));
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, name: &str, value: String) {
        // An empty `tracestate` says nothing.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}
