use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a [`ScriptedVendor`] does with one connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers with a status, further headers and a body.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Headers beside content length and type.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// Writes these bytes, then hangs up.
    Raw(Vec<u8>),
    /// Hangs up without reading the request.
    HangUpBeforeReading,
    /// Reads the request, then hangs up.
    HangUpAfterReading,
    /// Reads the request, and never answers.
    Stall,
}

impl Step {
    /// An answer without further headers.
    pub fn answer(status: u16, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header to an answer.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Answer { status, headers, body } => {
                let mut text = format!(
                    "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n",
                    body.len()
                );
                for (name, value) in headers {
                    let _ = write!(text, "{name}: {value}\r\n");
                }
                Some((text + "\r\n" + body).into_bytes())
            }
            Self::Raw(bytes) => Some(bytes.clone()),
            Self::HangUpBeforeReading | Self::HangUpAfterReading | Self::Stall => None,
        }
    }
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Received {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body's form fields, decoded.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }

    /// One form field; `None` when it is absent or comes twice.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut values = self.form().into_iter().filter(|(known, _)| known == name);
        let value = values.next()?.1;
        values.next().is_none().then_some(value)
    }
}

type Hook = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    steps: Mutex<VecDeque<Step>>,
    received: Mutex<Vec<Received>>,
    hook: Mutex<Option<Hook>>,
}

/// A vendor on a real socket that does what its script says, one step for each connection. When the script is over it
/// answers 500.
pub struct ScriptedVendor {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl ScriptedVendor {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Panics
    /// When it cannot listen.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen on loopback");
        let address = listener.local_addr().expect("the listener's address");
        let state = Arc::new(State { steps: Mutex::new(steps.into_iter().collect()), ..State::default() });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // The peer may hang up at any time; what counts is what the caller makes of it.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Self { address, state, task }
    }

    /// Where it listens, such as `http://127.0.0.1:12345`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Adds a step to the script.
    pub fn push(&self, step: Step) {
        self.state.steps.lock().push_back(step);
    }

    /// Calls `hook` after each request was read, before it is answered.
    pub fn on_request(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.state.hook.lock() = Some(Box::new(hook));
    }

    /// The requests that it has read so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().clone()
    }
}

impl Drop for ScriptedVendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let step = state.steps.lock().pop_front().unwrap_or_else(|| Step::answer(500, "the script is over"));
    if matches!(step, Step::HangUpBeforeReading) {
        return Ok(());
    }
    let Some(request) = read(&mut stream).await? else { return Ok(()) };
    state.received.lock().push(request);
    if let Some(hook) = &*state.hook.lock() {
        hook();
    }
    match step.bytes() {
        Some(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        None if matches!(step, Step::Stall) => {
            // Ends when the caller gives up.
            stream.read_u8().await.map(|_| ())
        }
        None => Ok(()),
    }
}

/// Reads one HTTP/1.1 request with a content length; `None` when it is not one, such as a TLS handshake.
async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Received>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 || !bytes[0].is_ascii_uppercase() {
            return Ok(None);
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut request_line = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (request_line.next(), request_line.next()) else {
            return Ok(None);
        };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut received = Received { method, target, headers, body: String::new() };
        let length = received.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Ok(None);
            }
        }
        received.body = String::from_utf8_lossy(&body).into_owned();
        return Ok(Some(received));
    }
}
