//! Checks the signature of a request, as the service would (AWS Signature Version 4, "Create a signed AWS API request").

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::stub::Request;

/// Whether the request is signed with this secret, body included.
pub(crate) fn is_signed(request: &Request, secret: &str) -> bool {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let authorization = header("authorization");
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}=")).expect("a part of the authorization");
        rest.split(',').next().expect("a value").to_owned()
    };
    let signed = part("SignedHeaders");
    let headers: String = signed.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let canonical =
        format!("{}\n{}\n\n{headers}\n{signed}\n{}", request.method, request.path, hex(&Sha256::digest(&request.body)));
    let credential = part("Credential");
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{}\n{}",
        header("x-amz-date"),
        scope.join("/"),
        hex(&Sha256::digest(&canonical))
    );
    let key = scope.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part));
    hex(&hmac(&key, &text)) == part("Signature")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.chain_update(text.as_bytes()).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
