//! fal and Replicate as servers: the same job in the words of each.

use super::*;

/// The settings of a backend, which both builders have.
pub(crate) struct Settings {
    pub(crate) base_url: String,
    pub(crate) interval: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) http_client: reqwest::Client,
}

impl Settings {
    pub(crate) fn new(server: &RawServer) -> Self {
        Self {
            base_url: server.uri.clone(),
            interval: Duration::from_secs(1),
            retry: RetryPolicy::default().max_retries(1),
            first_byte_timeout: Duration::from_secs(480),
            http_client: http_client().no_proxy().build().unwrap(),
        }
    }
}

macro_rules! build {
    ($service:ident) => {
        |settings| {
            let builder = $service::builder().api_key(KEY).base_url(settings.base_url).retry(settings.retry);
            let builder = builder.poll_interval(settings.interval).first_byte_timeout(settings.first_byte_timeout);
            Box::new(builder.http_client(settings.http_client).build().unwrap())
        }
    };
}

pub(crate) struct Provider {
    pub(crate) name: &'static str,
    pub(crate) build: fn(Settings) -> Box<dyn Backend>,
    pub(crate) submit: &'static str,
    /// Contains URLs of another host, which the client must not follow.
    submitted: &'static str,
    pub(crate) status: &'static str,
    pub(crate) queued: &'static str,
    pub(crate) running: &'static str,
    pub(crate) ended: &'static str,
    /// Replicate sends the result with the status.
    result: &'static str,
    images: &'static str,
    pub(crate) cancel: &'static str,
}

pub(crate) static PROVIDERS: [Provider; 2] = [
    Provider {
        name: "fal",
        build: build!(Fal),
        submit: "POST /fal-ai/stable-diffusion-v35-medium",
        submitted: r#"{"request_id":"j1","status_url":"https://evil.example/s","cancel_url":"https://evil.example/c"}"#,
        status: "GET /fal-ai/stable-diffusion-v35-medium/requests/j1/status",
        queued: r#"{"status":"IN_QUEUE"}"#,
        running: r#"{"status":"IN_PROGRESS"}"#,
        ended: r#"{"status":"COMPLETED"}"#,
        result: "GET /fal-ai/stable-diffusion-v35-medium/requests/j1",
        images: r#"{"images":[{"url":"https://files.example/1"}]}"#,
        cancel: "PUT /fal-ai/stable-diffusion-v35-medium/requests/j1/cancel",
    },
    Provider {
        name: "replicate",
        build: build!(Replicate),
        submit: "POST /models/stability-ai/stable-diffusion-3.5-medium/predictions",
        submitted: r#"{"id":"j1","urls":{"get":"https://evil.example/s","cancel":"https://evil.example/c"}}"#,
        status: "GET /predictions/j1",
        queued: r#"{"status":"starting"}"#,
        running: r#"{"status":"processing"}"#,
        ended: r#"{"status":"succeeded","output":["https://files.example/1"]}"#,
        result: "",
        images: "",
        cancel: "POST /predictions/j1/cancel",
    },
];

/// The acts of a server for each kind of request. The last act of a list is repeated.
pub(crate) struct Script {
    pub(crate) submit: Vec<Act>,
    pub(crate) status: Vec<Act>,
    pub(crate) result: Vec<Act>,
}

pub(crate) fn ok(body: &str) -> Act {
    Act::Send(response("200 OK", "", body))
}

pub(crate) fn status(status: u16) -> Act {
    Act::Send(response(&format!("{status} Status"), "", "{}"))
}

impl Provider {
    /// The response to a submission.
    pub(crate) fn submitted(&self) -> Vec<u8> {
        response("201 Created", "", self.submitted)
    }

    /// A job that ends before its status is requested for the first time.
    pub(crate) fn script(&self) -> Script {
        Script {
            submit: vec![Act::Send(self.submitted())],
            status: vec![ok(self.ended)],
            result: vec![ok(self.images)],
        }
    }

    pub(crate) async fn server(&'static self, script: Script) -> RawServer {
        RawServer::routed(move |request, earlier| {
            let acts = match request {
                _ if request == self.submit => &script.submit,
                _ if request == self.status => &script.status,
                _ if request == self.result => &script.result,
                _ => return ok("{}"),
            };
            acts[earlier.min(acts.len() - 1)].clone()
        })
        .await
    }

    /// Runs a job with these settings and, if given, a deadline in this many seconds.
    pub(crate) async fn run(&self, settings: Settings, deadline: Option<u64>) -> Result<Output, Error> {
        let backend = (self.build)(settings);
        let mut context = RequestContext::default();
        context.deadline = deadline.map(|seconds| (Instant::now() + Duration::from_secs(seconds)).into_std());
        backend.send(generate_spec().into(), context).await
    }
}
