//! Pushes an image to a registry over the OCI distribution API: only what a push needs.
//!
//! A registry on this machine is spoken to in plain HTTP, any other over TLS.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body, SendBody};

use super::oci::{self, Blob};
use super::{ImageTar, normalise};
use crate::progress::Progress;

/// A registry that accepts the connection and then says nothing must not hang the verb.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Who pushes, for registries that ask.
#[derive(Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not reach a log.
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// The login in `TRYSAIL_REGISTRY_USER` and `TRYSAIL_REGISTRY_PASSWORD`.
    pub fn from_env() -> Option<Login> {
        let (user, password) = ("TRYSAIL_REGISTRY_USER", "TRYSAIL_REGISTRY_PASSWORD");
        Some(Login { user: std::env::var(user).ok()?, password: std::env::var(password).ok()? })
    }
}

/// Pushes the image `reference` of `archive` as `target`, for example `127.0.0.1:5000/team/app:1.0`.
pub fn push(
    archive: &ImageTar,
    reference: &str,
    target: &str,
    login: Option<&Login>,
    progress: &Progress,
) -> Result<()> {
    let target = Target::parse(target)?;
    let contents = oci::read_archive(&archive.path, reference)?;
    let mut registry = Registry::new(target, login.cloned());
    progress.run(format!("push {reference} to {}", registry.target.show()), || {
        for blob in &contents.blobs {
            registry.push_blob(&archive.path, blob)?;
        }
        registry.push_manifest(&contents.manifest)
    })
}

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    repository: String,
    tag: String,
}

impl Target {
    fn parse(text: &str) -> Result<Target> {
        let full = normalise(text);
        let parts = full.split_once('/').and_then(|(host, rest)| Some((host, rest.rsplit_once(':')?)));
        let Some((host, (repository, tag))) = parts else { bail!("{text:?} is no HOST/NAME:TAG") };
        // Docker Hub's API has a host name of its own.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        Ok(Target { host: host.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }

    fn base(&self) -> String {
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let scheme =
            if name == "localhost" || name.starts_with("127.") || name == "[::1]" { "http" } else { "https" };
        format!("{scheme}://{}", self.host)
    }

    fn show(&self) -> String {
        format!("{}/{}:{}", self.host, self.repository, self.tag)
    }
}

struct Registry {
    agent: Agent,
    target: Target,
    login: Option<Login>,
    /// The value of the Authorization header, once the registry has asked for one.
    authorization: Option<String>,
}

impl Registry {
    fn new(target: Target, login: Option<Login>) -> Registry {
        let local = target.base().starts_with("http:");
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(REPLY_TIMEOUT));
        if local {
            config = config.proxy(None); // a proxy would look for the address on its own machine
        }
        Registry { agent: config.build().new_agent(), target, login, authorization: None }
    }

    fn push_blob(&mut self, archive: &Path, blob: &Blob) -> Result<()> {
        let repository = format!("{}/v2/{}/blobs", self.target.base(), self.target.repository);
        if self.head(&format!("{repository}/{}", blob.digest))?.status() == 200 {
            return Ok(());
        }
        let begun = self.begin_upload(&format!("{repository}/uploads/"))?;
        let location =
            header(begun.headers(), "location").context("the registry gave no place for the upload")?;
        let url = with_digest(&absolute(&self.target.base(), location)?, &blob.digest);
        let mut file =
            File::open(archive).with_context(|| format!("failed to open {}", archive.display()))?;
        file.seek(SeekFrom::Start(blob.offset))
            .with_context(|| format!("failed to read {}", archive.display()))?;
        let mut request = self
            .agent
            .put(&url)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", blob.size.to_string());
        if let Some(value) = &self.authorization {
            request = request.header("Authorization", value);
        }
        let reply = request
            .send(SendBody::from_owned_reader(file.take(blob.size)))
            .with_context(|| format!("failed to send {} to {}", blob.digest, self.target.host))?;
        self.expect(reply, 201, &format!("sending {}", blob.digest))
    }

    fn push_manifest(&mut self, manifest: &[u8]) -> Result<()> {
        let url =
            format!("{}/v2/{}/manifests/{}", self.target.base(), self.target.repository, self.target.tag);
        let mut request = self.agent.put(&url).header("Content-Type", oci::MANIFEST_TYPE);
        if let Some(value) = &self.authorization {
            request = request.header("Authorization", value);
        }
        let reply =
            request.send(manifest).with_context(|| format!("failed to send to {}", self.target.host))?;
        self.expect(reply, 201, "sending the manifest")
    }

    fn head(&mut self, url: &str) -> Result<Response<Body>> {
        self.with_login(|agent, authorization| {
            let request = agent.head(url);
            match authorization {
                Some(value) => request.header("Authorization", value).call(),
                None => request.call(),
            }
        })
    }

    fn begin_upload(&mut self, url: &str) -> Result<Response<Body>> {
        let reply = self.with_login(|agent, authorization| {
            let request = agent.post(url);
            match authorization {
                Some(value) => request.header("Authorization", value).send_empty(),
                None => request.send_empty(),
            }
        })?;
        if reply.status() != 202 {
            self.expect(reply, 202, "beginning an upload")?;
            bail!("the registry began no upload");
        }
        Ok(reply)
    }

    /// Sends a request; when the registry wants to know who asks, logs in and sends it again.
    fn with_login(
        &mut self,
        send: impl Fn(&Agent, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>> {
        let context = || format!("failed to reach the registry {}: is it running?", self.target.host);
        let reply = send(&self.agent, self.authorization.as_deref()).with_context(context)?;
        if reply.status() != 401 {
            return Ok(reply);
        }
        let challenge = header(reply.headers(), "www-authenticate").unwrap_or_default().to_owned();
        self.authorization = Some(self.log_in(&challenge)?);
        send(&self.agent, self.authorization.as_deref()).with_context(context)
    }

    fn log_in(&self, challenge: &str) -> Result<String> {
        let basic = self.login.as_ref().map(basic);
        let Some(parameters) = challenge.strip_prefix("Bearer ") else {
            return basic.with_context(|| {
                format!(
                    "{} wants a login: set TRYSAIL_REGISTRY_USER and TRYSAIL_REGISTRY_PASSWORD",
                    self.target.host
                )
            });
        };
        let realm = parameter(parameters, "realm").context("the registry's challenge names no realm")?;
        let scope = format!("repository:{}:pull,push", self.target.repository);
        let mut request = self.agent.get(realm).query("scope", scope);
        if let Some(service) = parameter(parameters, "service") {
            request = request.query("service", service);
        }
        if let Some(value) = &basic {
            request = request.header("Authorization", value);
        }
        let mut reply = request.call().with_context(|| format!("failed to ask {realm} for a token"))?;
        let text = reply
            .body_mut()
            .read_to_string()
            .with_context(|| format!("failed to read the answer of {realm}"))?;
        if reply.status() != 200 {
            bail!(
                "{realm} gave no token ({}): check TRYSAIL_REGISTRY_USER and TRYSAIL_REGISTRY_PASSWORD",
                reply.status()
            );
        }
        let answer: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{realm} sent no JSON"))?;
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        Ok(format!("Bearer {}", token.with_context(|| format!("{realm} sent no token"))?))
    }

    fn expect(&self, mut reply: Response<Body>, wanted: u16, what: &str) -> Result<()> {
        if reply.status() == wanted {
            return Ok(());
        }
        let body = reply.body_mut().read_to_string().unwrap_or_default();
        bail!("{what} to {} failed: {} {}", self.target.host, reply.status(), body.trim())
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Registries answer with a path or a full address.
fn absolute(base: &str, location: &str) -> Result<String> {
    let uri: Uri =
        location.parse().with_context(|| format!("the registry sent a bad address {location:?}"))?;
    Ok(if uri.host().is_some() { location.to_owned() } else { format!("{base}{location}") })
}

fn with_digest(url: &str, digest: &str) -> String {
    format!("{url}{}digest={digest}", if url.contains('?') { '&' } else { '?' })
}

/// `realm="https://a/b",service="c"` → the value of one name.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
    parameters[start..].split('"').next()
}

fn basic(login: &Login) -> String {
    format!("Basic {}", base64(format!("{}:{}", login.user, login.password).as_bytes()))
}

/// Base64 with padding: one header does not justify a dependency.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_say_host_and_scheme() {
        let target = Target::parse("127.0.0.1:5000/team/app:1.0").unwrap();
        assert_eq!(
            (target.base().as_str(), target.repository.as_str(), target.tag.as_str()),
            ("http://127.0.0.1:5000", "team/app", "1.0")
        );
        assert_eq!(Target::parse("ghcr.io/o/app").unwrap().base(), "https://ghcr.io");
        assert_eq!(Target::parse("ghcr.io/o/app").unwrap().tag, "latest");
        assert_eq!(Target::parse("nginx:1").unwrap().base(), "https://registry-1.docker.io");
    }

    #[test]
    fn upload_addresses_are_completed() {
        assert_eq!(absolute("http://h:5", "/v2/x?state=1").unwrap(), "http://h:5/v2/x?state=1");
        assert_eq!(absolute("http://h:5", "http://other/x").unwrap(), "http://other/x");
        assert_eq!(with_digest("http://h/x?state=1", "sha256:a"), "http://h/x?state=1&digest=sha256:a");
        assert_eq!(with_digest("http://h/x", "sha256:a"), "http://h/x?digest=sha256:a");
    }

    #[test]
    fn challenges_are_read() {
        let text = "realm=\"https://auth.example/token\",service=\"registry\"";
        assert_eq!(parameter(text, "realm"), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "service"), Some("registry"));
        assert_eq!(parameter(text, "scope"), None);
    }

    /// The examples of RFC 4648.
    #[test]
    fn base64_pads() {
        let encoded = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    /// A registry that is not there is named at once.
    #[test]
    fn an_absent_registry_is_named() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut registry = Registry::new(Target::parse(&format!("127.0.0.1:{port}/a:1")).unwrap(), None);
        let url = format!("{}/v2/", registry.target.base());
        let error = format!("{:#}", registry.head(&url).unwrap_err());
        assert!(
            error.starts_with(&format!("failed to reach the registry 127.0.0.1:{port}: is it running?")),
            "{error}"
        );
    }
}
