//! `rollcall lookup` and `rollcall services`.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arguments::{LookupArguments, ServicesArguments};
use super::failure::Failure;
use super::output::{Format, print, printable, table};
use super::sidecar_client::{Answer, SidecarClient};
use crate::registry::ServiceKey;

/// `GET /api/v1/services`.
#[derive(Debug, Deserialize)]
struct ServicesBody {
    age_ms: Option<u64>,
    stale: bool,
    services: Vec<ServiceLine>,
}

#[derive(Debug, Deserialize)]
struct ServiceLine {
    namespace: String,
    name: String,
    /// `None` when that is not known, since the service is not followed.
    instances: Option<u64>,
    up: Option<u64>,
}

/// `GET /api/v1/services/{namespace}/{service}`.
#[derive(Debug, Deserialize)]
pub(super) struct ServiceBody {
    age_ms: Option<u64>,
    stale: bool,
    pub(super) instances: Vec<InstanceBody>,
}

/// One instance, as the sidecar tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct InstanceBody {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<PortBody>,
    pub(super) weight: u32,
    pub(super) priority: u32,
    pub(super) effective_priority: u32,
    pub(super) zone: Option<String>,
    pub(super) node: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) selected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct PortBody {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) protocol: String,
}

/// Shows one service.
pub(super) async fn lookup(arguments: LookupArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let key = arguments.name.0;
    let answer = client.get(&path(&key), None, Duration::ZERO).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if answer.refusal().is_some() => {
            return Err(never_heard_of(&client, &key));
        }
        _ => return Err(refused(&client, &answer)),
    }
    match arguments.output.output {
        Format::Json => print_json(&client, &answer),
        Format::Table => {
            let service: ServiceBody = decode(&client, &answer)?;
            print(&service_table(&key, &service))
        }
    }
}

/// Lists all services.
pub(super) async fn services(arguments: ServicesArguments) -> Result<(), Failure> {
    let client = SidecarClient::new(&arguments.sidecar.http_addr)?;
    let answer = client.get("/api/v1/services", None, Duration::ZERO).await?;
    if answer.status != StatusCode::OK {
        return Err(refused(&client, &answer));
    }
    match arguments.output.output {
        Format::Json => print_json(&client, &answer),
        Format::Table => {
            let body: ServicesBody = decode(&client, &answer)?;
            let row = |line: &ServiceLine| {
                vec![
                    printable(&line.namespace),
                    printable(&line.name),
                    known_or_dash(line.up),
                    known_or_dash(line.instances),
                ]
            };
            let rows = body.services.iter().map(row).collect();
            let table = table(&["NAMESPACE", "SERVICE", "UP", "INSTANCES"], rows);
            print(&format!("{table}\n{}", freshness(body.age_ms, body.stale)))
        }
    }
}

fn known_or_dash(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Where the sidecar tells of a service.
pub(super) fn path(key: &ServiceKey) -> String {
    format!("/api/v1/services/{}/{}", key.namespace, key.name)
}

/// Reads an answer's JSON.
pub(super) fn decode<T: DeserializeOwned>(client: &SidecarClient, answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| no_sidecar(client, &error.to_string()))
}

/// No such service.
pub(super) fn never_heard_of(client: &SidecarClient, key: &ServiceKey) -> Failure {
    let text = format!("no service {key} is known to the sidecar at {}", client.addr());
    Failure::failed(format!("{text}; `rollcall services` lists those that are"))
}

/// Any answer that is no result.
pub(super) fn refused(client: &SidecarClient, answer: &Answer) -> Failure {
    match answer.refusal() {
        Some(refusal) => {
            let refusal = printable(&refusal);
            Failure::failed(format!("the sidecar at {} says: {refusal}", client.addr()))
        }
        None => no_sidecar(client, &format!("status {}", answer.status)),
    }
}

fn no_sidecar(client: &SidecarClient, reason: &str) -> Failure {
    let text = format!("what listens at {} does not answer as a sidecar does: {reason}", client.addr());
    Failure::failed(format!("{text}; name another with --http-addr"))
}

pub(super) fn print_json(client: &SidecarClient, answer: &Answer) -> Result<(), Failure> {
    let value: serde_json::Value = decode(client, answer)?;
    print(&serde_json::to_string_pretty(&value).map_err(|error| Failure::failed(error.to_string()))?)
}

/// The tier it is in, and the one that it waits for.
fn priority(instance: &InstanceBody) -> String {
    let InstanceBody { priority, effective_priority, .. } = instance;
    if priority == effective_priority {
        priority.to_string()
    } else {
        format!("{effective_priority} (held off from {priority})")
    }
}

fn service_table(key: &ServiceKey, service: &ServiceBody) -> String {
    let row = |instance: &InstanceBody| {
        vec![
            if instance.selected { "*".to_owned() } else { String::new() },
            printable(&instance.id),
            printable(&instance.status),
            printable(&instance.addresses.join(",")),
            printable(&ports(&instance.ports)),
            priority(instance),
            instance.weight.to_string(),
            printable(instance.zone.as_deref().unwrap_or("-")),
            printable(&instance.tags.join(",")),
        ]
    };
    let headings = ["", "ID", "STATUS", "ADDRESS", "PORTS", "PRIORITY", "WEIGHT", "ZONE", "TAGS"];
    let table = table(&headings, service.instances.iter().map(row).collect());
    let selected = service.instances.iter().filter(|instance| instance.selected).count();
    let count = service.instances.len();
    let freshness = freshness(service.age_ms, service.stale);
    format!("{table}\n{key}: {selected} of {count} offered (*), {freshness}")
}

/// `8080` for the default port alone, else `http 8080, dns 53/udp`.
pub(super) fn ports(ports: &[PortBody]) -> String {
    let text = |port: &PortBody| match port.protocol.as_str() {
        "tcp" => format!("{} {}", port.name, port.port),
        protocol => format!("{} {}/{protocol}", port.name, port.port),
    };
    match ports {
        [only] if only.name == "default" && only.protocol == "tcp" => only.port.to_string(),
        ports => ports.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn freshness(age_ms: Option<u64>, is_stale: bool) -> String {
    let age = match age_ms {
        None => "never proved current".to_owned(),
        Some(ms) if ms < 10_000 => format!("as of {ms} ms ago"),
        Some(ms) => format!("as of {} s ago", ms / 1000),
    };
    if is_stale { format!("{age}, stale: the sidecar has no contact with the ensemble") } else { age }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::arguments::{OutputArguments, SidecarAddress};
    use super::*;

    #[test]
    fn a_table_shows_what_matters() {
        let service: ServiceBody = serde_json::from_str(
            r#"{"namespace":"default","name":"web","zxid":"0x1","age_ms":12,"stale":false,"instances":[
            {"id":"web-1","status":"up","addresses":["127.0.0.1"],"ports":[{"name":"default","port":8081,"protocol":"tcp"}],
             "weight":1,"priority":0,"effective_priority":0,"zone":null,"node":null,"tags":["a","b"],"meta":{},"selected":true},
            {"id":"web-2","status":"failing","addresses":["127.0.0.1"],"ports":[{"name":"http","port":8082,"protocol":"tcp"},
             {"name":"dns","port":53,"protocol":"udp"}],"weight":1,"priority":0,"effective_priority":0,"zone":"z1","node":null,
             "tags":[],"meta":{},"selected":false}]}"#,
        )
        .unwrap();
        let key = "web".parse::<super::super::name::NameArgument>().unwrap().0;
        assert_eq!(
            service_table(&key, &service),
            "   ID     STATUS   ADDRESS    PORTS                  PRIORITY  WEIGHT  ZONE  TAGS
*  web-1  up       127.0.0.1  8081                   0         1       -     a,b
   web-2  failing  127.0.0.1  http 8082, dns 53/udp  0         1       z1
web.default: 1 of 2 offered (*), as of 12 ms ago"
        );
    }

    #[tokio::test]
    async fn a_404_of_another_server_is_not_taken_for_an_unknown_service() {
        let told = |body: &'static str| async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _request = socket.read(&mut [0; 1024]).await.unwrap();
                let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n", body.len());
                socket.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
            });
            let arguments = LookupArguments {
                name: "web".parse().unwrap(),
                sidecar: SidecarAddress { http_addr: addr.to_string() },
                output: OutputArguments { output: Format::Table },
            };
            lookup(arguments).await.unwrap_err().to_string().replace(&addr.to_string(), "ADDR")
        };
        assert_eq!(
            told("<h1>nothing here</h1>").await,
            "what listens at ADDR does not answer as a sidecar does: status 404 Not Found; name another with --http-addr"
        );
        assert_eq!(
            told(r#"{"error":"no service"}"#).await,
            "no service web.default is known to the sidecar at ADDR; `rollcall services` lists those that are"
        );
    }

    #[test]
    fn stale_answers_say_so() {
        assert!(freshness(Some(31_000), true).starts_with("as of 31 s ago, stale"));
        assert_eq!(freshness(None, false), "never proved current");
    }
}
