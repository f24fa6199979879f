//! RFC 3263: from a name to addresses, by NAPTR, SRV, A and AAAA.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use sip_engine::io::Transport;
use sip_engine::question::{Resolve, ResolvedAddress};

/// Asks the machine's resolvers.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

/// No more addresses of one name than this are tried.
const LIMIT: usize = 16;

impl Resolver {
    /// With the configuration of the machine (`/etc/resolv.conf`).
    pub fn system() -> Result<Self, String> {
        let builder = TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        Ok(Self(builder.build().map_err(|error| error.to_string())?))
    }

    /// The addresses to try, in order (RFC 3263 §4); empty if the name leads nowhere.
    pub async fn resolve(&self, question: &Resolve) -> Vec<ResolvedAddress> {
        if let Some(literal) = question.literal() {
            return vec![literal];
        }
        let mut found = Vec::new();
        if let Some(port) = question.port {
            let transport =
                question.transport.unwrap_or(if question.secure { Transport::Tls } else { Transport::Udp });
            self.addresses(&question.host, port, transport, &question.host, &mut found).await;
            return found;
        }
        for (transport, name) in self.services(question).await {
            let mut records = self.services_of(&name).await;
            order(&mut records);
            for record in records {
                self.addresses(&record.target, record.port, transport, &question.host, &mut found).await;
                if found.len() >= LIMIT {
                    return found;
                }
            }
        }
        if found.is_empty() {
            let transport =
                question.transport.unwrap_or(if question.secure { Transport::Tls } else { Transport::Udp });
            let port = if transport == Transport::Tls { 5061 } else { 5060 };
            self.addresses(&question.host, port, transport, &question.host, &mut found).await;
        }
        found.truncate(LIMIT);
        found
    }

    /// Transports and the names of their SRV records, by NAPTR or, without any, by all that we can speak.
    async fn services(&self, question: &Resolve) -> Vec<(Transport, String)> {
        let by_name = |transport: Transport| {
            let prefix = match transport {
                Transport::Udp => "_sip._udp",
                Transport::Tcp => "_sip._tcp",
                Transport::Tls => "_sips._tcp",
            };
            (transport, format!("{prefix}.{}", question.host))
        };
        if question.secure {
            return vec![by_name(Transport::Tls)];
        }
        if let Some(transport) = question.transport {
            return vec![by_name(transport)];
        }
        let mut found = Vec::new();
        if let Ok(answer) = self.0.lookup(format!("{}.", question.host), RecordType::NAPTR).await {
            for record in answer.answers() {
                if let RData::NAPTR(naptr) = &record.data {
                    let transport = match &naptr.services.to_ascii_uppercase()[..] {
                        b"SIP+D2U" => Transport::Udp,
                        b"SIP+D2T" => Transport::Tcp,
                        b"SIPS+D2T" => Transport::Tls,
                        _ => continue,
                    };
                    found.push((naptr.order, naptr.preference, transport, naptr.replacement.to_string()));
                }
            }
        }
        found.sort_by_key(|entry| (entry.0, entry.1));
        if found.is_empty() {
            return [Transport::Udp, Transport::Tcp, Transport::Tls].map(by_name).into();
        }
        found.into_iter().map(|entry| (entry.2, entry.3)).collect()
    }

    async fn services_of(&self, name: &str) -> Vec<Service> {
        let Ok(answer) = self.0.srv_lookup(name.to_owned()).await else { return Vec::new() };
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_string(),
            }),
            _ => None,
        });
        records.collect()
    }

    async fn addresses(
        &self,
        name: &str,
        port: u16,
        transport: Transport,
        server_name: &Arc<str>,
        found: &mut Vec<ResolvedAddress>,
    ) {
        let host = name.trim_end_matches('.');
        if let Ok(address) = host.parse() {
            found.push(ResolvedAddress {
                transport,
                address: SocketAddr::new(address, port),
                server_name: server_name.clone(),
            });
            return;
        }
        if let Ok(answer) = self.0.lookup_ip(host).await {
            found.extend(answer.iter().map(|address| ResolvedAddress {
                transport,
                address: SocketAddr::new(address, port),
                server_name: server_name.clone(),
            }));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

/// RFC 2782: by priority, and within one by weight, at random.
fn order(records: &mut Vec<Service>) {
    records.sort_by_key(|record| record.priority);
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let same = records.iter().take_while(|record| record.priority == priority).count();
        let total: u32 = records[..same].iter().map(|record| u32::from(record.weight) + 1).sum();
        let mut seed = [0; 4];
        // Without randomness the order is still right by priority.
        let _ = getrandom::fill(&mut seed);
        let mut pick = u32::from_ne_bytes(seed) % total.max(1);
        let chosen = records[..same].iter().position(|record| {
            let weight = u32::from(record.weight) + 1;
            let is_it = pick < weight;
            pick = pick.saturating_sub(weight);
            is_it
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    *records = ordered;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_comes_before_weight_and_nothing_is_lost() {
        let service = |priority, weight| Service {
            priority,
            weight,
            port: 5060,
            target: format!("{priority}-{weight}"),
        };
        for _ in 0..50 {
            let mut records = vec![service(20, 0), service(10, 5), service(10, 0), service(10, 65535)];
            order(&mut records);
            assert_eq!(records.iter().map(|record| record.priority).collect::<Vec<_>>(), [10, 10, 10, 20]);
        }
    }
}
