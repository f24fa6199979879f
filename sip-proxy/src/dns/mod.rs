//! RFC 3263: from a name to addresses, by NAPTR, SRV, A and AAAA.
//!
//! Records are cached for their time to live, and so is their absence (RFC 2308).

mod service;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use sip_engine::io::Transport;
use sip_engine::question::{Resolve, ResolvedAddress};
use tokio::sync::Semaphore;

use service::{Service, order, random};

/// No more addresses of one name than this are tried.
const LIMIT: usize = 16;

/// Lookups under way; a call beyond them is told at once that its target can't be reached.
const LOOKUPS: usize = 512;

/// All queries for one name together. What was found until then counts.
const PATIENCE: Duration = Duration::from_secs(4);

/// One query, and how often it is sent.
const QUERY: Duration = Duration::from_millis(1500);
const ATTEMPTS: usize = 2;

/// A name whose servers did not answer is not asked for again for so long (RFC 2308 §7): calls fail over at once.
const DEAD: Duration = Duration::from_secs(5);

/// Names that are remembered as dead.
const DEAD_NAMES: usize = 4096;

/// Aliases of a service's name that are followed.
const ALIASES: usize = 4;

/// Records in the cache.
const RECORDS: u64 = 16_384;

type Question = (Arc<str>, Option<u16>, Option<Transport>, bool);

/// Asks name servers. Clones share cache and limits.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    lookups: Arc<Semaphore>,
    dead: Arc<Mutex<AHashMap<Question, Instant>>>,
}

impl Resolver {
    /// With the configuration of the machine (`/etc/resolv.conf`).
    pub fn system() -> Result<Self, String> {
        let builder = TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        Self::build(builder)
    }

    /// With one name server, asked over UDP and TCP.
    pub fn at(server: SocketAddr) -> Result<Self, String> {
        let mut server_config = NameServerConfig::udp_and_tcp(server.ip());
        server_config.connections.iter_mut().for_each(|connection| connection.port = server.port());
        let config = ResolverConfig::from_name_servers(vec![server_config]);
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, String> {
        let options: &mut ResolverOpts = builder.options_mut();
        // Which family is used is decided by the listeners of the realm that the call leaves by.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = RECORDS;
        options.timeout = QUERY;
        options.attempts = ATTEMPTS;
        Ok(Self {
            inner: builder.build().map_err(|error| error.to_string())?,
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            dead: Arc::new(Mutex::new(AHashMap::new())),
        })
    }

    /// The addresses to try, in order (RFC 3263 §4); empty if the name leads nowhere. Comes back within seconds.
    pub async fn resolve(&self, question: &Resolve) -> Vec<ResolvedAddress> {
        if let Some(literal) = question.literal() {
            return vec![literal];
        }
        let name = (question.host.clone(), question.port, question.transport, question.secure);
        if self.is_dead(&name) {
            return Vec::new();
        }
        let Ok(_permit) = self.lookups.try_acquire() else { return Vec::new() };
        let mut found = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.collect(question, &mut found)).await;
        found.truncate(LIMIT);
        if found.is_empty() && !matches!(ended, Ok(Ok(()))) {
            let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
            if dead.len() >= DEAD_NAMES {
                dead.clear();
            }
            dead.insert(name, Instant::now());
        }
        found
    }

    fn is_dead(&self, name: &Question) -> bool {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        match dead.get(name) {
            Some(since) if since.elapsed() < DEAD => true,
            Some(_) => {
                dead.remove(name);
                false
            }
            None => false,
        }
    }

    /// An error says that a server did not answer, so that what was found may not be all.
    async fn collect(&self, question: &Resolve, found: &mut Vec<ResolvedAddress>) -> Result<(), Unanswered> {
        let default =
            question.transport.unwrap_or(if question.secure { Transport::Tls } else { Transport::Udp });
        if let Some(port) = question.port {
            let server = Server { port, transport: default, name: question.host.clone() };
            return self.addresses(&question.host, &server, found).await;
        }
        let mut is_service = false;
        let mut unanswered = Ok(());
        for (transport, name) in self.services(question).await? {
            let services = match self.services_of(&name).await {
                Ok(services) => services,
                Err(error) => {
                    unanswered = Err(error);
                    continue;
                }
            };
            is_service |= !services.is_empty();
            // RFC 2782: a lone root target says that there is no such service here.
            let services = services.into_iter().filter(|service| service.target != ".").collect();
            for service in order(services, random) {
                let server = Server { port: service.port, transport, name: question.host.clone() };
                let looked_up = self.addresses(&service.target, &server, found).await;
                unanswered = unanswered.and(looked_up);
                if found.len() >= LIMIT {
                    return Ok(());
                }
            }
        }
        if !is_service {
            // RFC 3263 §4.2: no SRV records at all.
            let port = if default == Transport::Tls { 5061 } else { 5060 };
            let server = Server { port, transport: default, name: question.host.clone() };
            unanswered = unanswered.and(self.addresses(&question.host, &server, found).await);
        }
        unanswered
    }

    /// Transports and the names of their SRV records, by NAPTR or, without any, by all that we can speak.
    async fn services(&self, question: &Resolve) -> Result<Vec<(Transport, String)>, Unanswered> {
        let by_name = |transport: Transport| {
            let prefix = match transport {
                Transport::Udp => "_sip._udp",
                Transport::Tcp => "_sip._tcp",
                Transport::Tls => "_sips._tcp",
            };
            (transport, format!("{prefix}.{}", question.host))
        };
        if question.secure {
            return Ok(vec![by_name(Transport::Tls)]);
        }
        if let Some(transport) = question.transport {
            return Ok(vec![by_name(transport)]);
        }
        let records = self.lookup(&question.host, RecordType::NAPTR).await?;
        let mut found: Vec<_> = records.iter().filter_map(naptr).collect();
        found.sort_by_key(|entry| (entry.0, entry.1));
        // RFC 3403 §4.1: once an order has a rule that can be followed, the orders after it are not looked at.
        if let Some(order) = found.first().map(|entry| entry.0) {
            let first = found.into_iter().take_while(|entry| entry.0 == order);
            return Ok(first.map(|entry| (entry.2, entry.3)).collect());
        }
        Ok([Transport::Udp, Transport::Tcp, Transport::Tls].map(by_name).into())
    }

    /// The servers of a service. Its name may be an alias; the resolver follows those of hosts only.
    async fn services_of(&self, name: &str) -> Result<Vec<Service>, Unanswered> {
        let mut name = name.to_owned();
        for _ in 0..ALIASES {
            let records = self.lookup(&name, RecordType::SRV).await?;
            let services: Vec<_> = records.iter().filter_map(service).collect();
            if !services.is_empty() {
                return Ok(services);
            }
            let alias =
                self.lookup(&name, RecordType::CNAME).await?.into_iter().find_map(|record| match record {
                    RData::CNAME(alias) => Some(alias.to_string()),
                    _ => None,
                });
            let Some(alias) = alias else { break };
            name = alias;
        }
        Ok(Vec::new())
    }

    async fn addresses(
        &self,
        name: &str,
        server: &Server,
        found: &mut Vec<ResolvedAddress>,
    ) -> Result<(), Unanswered> {
        let address = |ip| ResolvedAddress {
            transport: server.transport,
            address: SocketAddr::new(ip, server.port),
            server_name: server.name.clone(),
        };
        match self.inner.lookup_ip(absolute(name)).await {
            Ok(answer) => found.extend(answer.iter().map(address)),
            Err(error) if error.is_no_records_found() => {}
            Err(_) => return Err(Unanswered),
        }
        Ok(())
    }

    /// The records of a type; none where the name or the type does not exist.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, Unanswered> {
        match self.inner.lookup(absolute(name), kind).await {
            Ok(answer) => Ok(answer.answers().iter().map(|record| record.data.clone()).collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(_) => Err(Unanswered),
        }
    }
}

/// What is known of a server before its addresses are.
struct Server {
    port: u16,
    transport: Transport,
    /// Whose certificate TLS wants there.
    name: Arc<str>,
}

/// No server gave an answer.
#[derive(Debug, Clone, Copy)]
struct Unanswered;

/// A SIP domain is a whole name: the machine's search domains are not for it.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn service(record: &RData) -> Option<Service> {
    let RData::SRV(srv) = record else { return None };
    Some(Service {
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        target: srv.target.to_string(),
    })
}

/// Order, preference, transport and SRV name of a rule that we can follow (RFC 3263 §4.1).
fn naptr(record: &RData) -> Option<(u16, u16, Transport, String)> {
    let RData::NAPTR(naptr) = record else { return None };
    let transport = match &naptr.services.to_ascii_uppercase()[..] {
        b"SIP+D2U" => Transport::Udp,
        b"SIP+D2T" => Transport::Tcp,
        b"SIPS+D2T" => Transport::Tls,
        _ => return None,
    };
    let leads_to_srv = naptr.flags.eq_ignore_ascii_case(b"s") && naptr.regexp.is_empty();
    leads_to_srv.then(|| (naptr.order, naptr.preference, transport, naptr.replacement.to_string()))
}
