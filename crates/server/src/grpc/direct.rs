//! GetToken without detours: it is nearly every call, so it skips the router, and its answer is written straight from the
//! token in memory instead of through a copy of each of its texts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BufMut;
use http::Request as HttpRequest;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokenward_api::v1::GetTokenRequest;
use tokenward_broker::{LiveToken, Token};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstDecoder;

use super::MAX_MESSAGE;
use super::call::Call;
use super::convert;
use super::token_service::{Tokens, warning};

/// The path of the method.
pub(crate) const GET_TOKEN: &str = "/tokenward.v1.TokenService/GetToken";

impl Tokens {
    /// Answers a GetToken call that was let through.
    pub(crate) async fn answer_directly(
        self: Arc<Self>,
        call: Call,
        request: HttpRequest<Body>,
    ) -> http::Response<Body> {
        let mut grpc = Grpc::new(AnswerCodec).apply_max_message_size_config(Some(MAX_MESSAGE), None);
        grpc.unary(GetToken { tokens: self, call: Some(call) }, request).await
    }
}

struct GetToken {
    tokens: Arc<Tokens>,
    call: Option<Call>,
}

impl UnaryService<GetTokenRequest> for GetToken {
    type Response = Token;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Token>, Status>> + Send>>;

    fn call(&mut self, request: Request<GetTokenRequest>) -> Self::Future {
        let (tokens, call) = (Arc::clone(&self.tokens), self.call.take());
        Box::pin(async move {
            // A unary call has one message; a second one would have no caller.
            let call = call.ok_or_else(|| Status::internal("one call, one message"))?;
            tokens.token(&call, request.into_inner()).await.map(Response::new)
        })
    }
}

/// Reads requests as every method does, and writes answers from tokens.
#[derive(Clone, Copy, Default)]
struct AnswerCodec;

impl Codec for AnswerCodec {
    type Encode = Token;
    type Decode = GetTokenRequest;
    type Encoder = AnswerEncoder;
    type Decoder = ProstDecoder<GetTokenRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        AnswerEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

struct AnswerEncoder;

impl Encoder for AnswerEncoder {
    type Item = Token;
    type Error = Status;

    fn encode(&mut self, token: Token, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(&token, buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Tokens of vendors have a few hundred characters, and scopes take as much.
        BufferSettings::new(2 * 1024, 32 * 1024)
    }
}

/// Writes `tokenward.v1.GetTokenResponse`.
fn write(token: &Token, buffer: &mut impl BufMut) {
    let live = &token.live;
    encode_key(1, WireType::LengthDelimited, buffer);
    encode_varint(live.access_token_length() as u64, buffer);
    live.write_access_token(|part| buffer.put_slice(part));
    text(2, LiveToken::TOKEN_TYPE, buffer);
    if let Some(at) = live.expires_at {
        prost::encoding::message::encode(3, &convert::timestamp(at), buffer);
    }
    if let Some(ttl) = token.ttl {
        prost::encoding::message::encode(4, &convert::duration(ttl), buffer);
    }
    for scope in live.scopes.iter() {
        text(5, scope, buffer);
    }
    text(6, live.connection.as_str(), buffer);
    text(7, live.account.as_str(), buffer);
    text(8, live.fingerprint.as_str(), buffer);
    for entry in &token.warnings {
        prost::encoding::message::encode(9, &warning(entry), buffer);
    }
    text(10, live.provider.as_str(), buffer);
}

fn text(tag: u32, text: &str, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(text.len() as u64, buffer);
    buffer.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;
    use tokenward_api::v1::GetTokenResponse;
    use tokenward_broker::{TokenFacts, Warning, WarningReason};
    use tokenward_types::{AccountId, ConnectionId, ProviderName, Scopes, SecretString, Timestamp};

    use super::*;
    use crate::grpc::token_service::answer;

    fn token(expires: Option<i64>, warnings: Vec<Warning>) -> Token {
        let access_token = SecretString::from("aZ09-_xy".repeat(64));
        let facts = TokenFacts {
            issued_at: Timestamp::from_secs(1_700_000_000),
            expires_at: expires.map(Timestamp::from_micros),
            scopes: Scopes::parse("oauth crm.objects.contacts.read").unwrap(),
            connection: ConnectionId::parse("con_1").unwrap(),
            account: AccountId::parse("1234567").unwrap(),
            provider: ProviderName::parse("hubspot").unwrap(),
            lifetime_assumed: false,
        };
        let live = LiveToken::new(&access_token, facts);
        let ttl = expires.map(|_| Duration::from_millis(1_234_567));
        Token { live: Arc::new(live), ttl, warnings }
    }

    #[test]
    fn what_is_written_is_what_the_generated_code_would_write() {
        let warning = Warning { reason: WarningReason::RefreshFailing, message: "later".into() };
        for token in [
            token(Some(1_700_001_800_123_456), vec![]),
            token(Some(1_700_001_800_000_000), vec![warning.clone(), warning]),
            token(None, vec![]),
        ] {
            let mut written = Vec::new();
            write(&token, &mut written);
            let expected: GetTokenResponse = answer(&token);
            assert_eq!(GetTokenResponse::decode(&*written).unwrap(), expected);
            assert_eq!(written, expected.encode_to_vec());
        }
    }
}
