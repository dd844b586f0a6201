//! Turns one packet into one answer: decoding, cookie, rate limit, region, table lookup. Each loop owns a [`Responder`].
//! The responders share [`Shared`], whose parts are replaced atomically and never locked.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;

use crate::{
    Config,
    cookie::{CookieStatus, Cookies},
    edns::{MAX_UDP_WITHOUT_EDNS, Opt},
    fallback,
    metrics::{Counters, Limited},
    prefixes::{Match, Prefixes},
    query::{Malformed, MalformedReason, Query, QueryError, read},
    random::Random,
    rate::RateLimiter,
    table::{Table, empty_response, error_response},
    transport::Transport,
    wire::Code,
};

const TCP_LIMIT: usize = u16::MAX as usize;

/// State that all responders share.
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) cookies: ArcSwap<Cookies>,
    rate: RateLimiter,
    /// Every n-th limited answer is sent truncated; 0: none.
    slip: u32,
    /// Index of the region of each client network.
    regions: Prefixes<u16>,
    start: Instant,
}

impl Shared {
    /// `config` must be valid.
    pub(crate) fn new(config: &Config, cookies: Cookies, table: Table) -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::from_pointee(table),
            cookies: ArcSwap::from_pointee(cookies),
            rate: RateLimiter::new(&config.rate),
            slip: config.rate.slip,
            regions: config.numbered_regions(),
            start: Instant::now(),
        })
    }

    /// The current time.
    pub(crate) fn now(&self) -> Timestamp {
        let micros = self.start.elapsed().as_micros() as u64;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp { micros, seconds: since_epoch.as_secs() as u32 }
    }
}

/// The time of an answer. A loop reads the clock once per batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timestamp {
    /// Microseconds since the start of this process.
    pub(crate) micros: u64,
    /// Seconds since the Unix epoch, modulo 2³², for cookies.
    pub(crate) seconds: u32,
}

pub(crate) struct Responder {
    shared: Arc<Shared>,
    transport: Transport,
    random: Random,
    counters: Counters,
    /// Number of limited answers. Every [`Shared::slip`]-th is sent truncated.
    limited: u32,
}

impl Responder {
    pub(crate) fn new(shared: Arc<Shared>, transport: Transport, random: Random) -> Self {
        Self { shared, transport, random, counters: Counters::new(transport), limited: 0 }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.now()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Writes the answer to a packet into `out`. Returns whether there is an answer.
    pub(crate) fn answer(&mut self, packet: &[u8], from: IpAddr, now: Timestamp, out: &mut Vec<u8>) -> bool {
        let from = from.to_canonical();
        match read(packet) {
            Ok(query) => {
                self.counters.fast_path.increment(1);
                self.reply(&query, from, now, out)
            }
            Err(QueryError::NeedsFallback) => self.answer_with_fallback(packet, from, now, out),
            Err(QueryError::Malformed(malformed)) => self.reply_malformed(&malformed, from, now, out),
            Err(QueryError::NotAQuery) => {
                self.counters.not_a_query.increment(1);
                false
            }
        }
    }

    #[cold]
    fn answer_with_fallback(
        &mut self,
        packet: &[u8],
        from: IpAddr,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> bool {
        self.counters.fallback.increment(1);
        let normalized = fallback::normalized(packet);
        match normalized.as_deref().map(read) {
            Ok(Ok(query)) => self.reply(&query, from, now, out),
            Ok(Err(QueryError::Malformed(malformed))) => self.reply_malformed(&malformed, from, now, out),
            Ok(Err(QueryError::NeedsFallback | QueryError::NotAQuery)) | Err(fallback::Unreadable) => {
                self.reply_malformed(&Malformed::new(packet, MalformedReason::Records), from, now, out)
            }
        }
    }

    fn reply_malformed(
        &mut self,
        malformed: &Malformed,
        from: IpAddr,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> bool {
        self.counters.malformed(malformed.reason);
        if self.transport == Transport::Udp && !self.shared.rate.allows(from, now.micros) {
            self.counters.limited(Limited::Dropped);
            return false;
        }
        let code = malformed.reason.code();
        error_response(malformed.id, malformed.flags, code, out);
        self.counters.answered(code);
        true
    }

    fn reply(&mut self, query: &Query<'_>, from: IpAddr, now: Timestamp, out: &mut Vec<u8>) -> bool {
        let edns = query.edns.as_ref();
        let cookie = edns.and_then(|edns| edns.cookie).map(|presented| {
            let (status, server) = self.shared.cookies.load().verify(&presented, from, now.seconds);
            (status, (*presented.client, server))
        });
        self.counters.cookie(cookie.map(|(status, _)| status));
        let mut opt = edns.map(|edns| Opt {
            dnssec_ok: edns.dnssec_ok,
            cookie: cookie.map(|(_, cookie)| cookie),
            subnet: edns.subnet.filter(|_| !edns.malformed).map(|subnet| (subnet, 0)),
        });
        // TCP and a valid cookie prove the address of the client, so the rate limit is not needed.
        let proven = self.transport == Transport::Tcp || matches!(cookie, Some((CookieStatus::Good, _)));
        if !proven && !self.shared.rate.allows(from, now.micros) {
            return self.limit(query, opt.as_ref(), out);
        }
        let wrong = edns.and_then(|edns| match edns {
            _ if !edns.is_supported() => Some(MalformedReason::Version),
            _ if edns.malformed => Some(MalformedReason::Option),
            _ => None,
        });
        if let Some(reason) = wrong {
            self.counters.malformed(reason);
            empty_response(query, reason.code(), false, opt.as_ref(), out);
            self.counters.answered(reason.code());
            return true;
        }
        let Some(question) = &query.question else {
            empty_response(query, Code::NoError, false, opt.as_ref(), out);
            self.counters.answered(Code::NoError);
            return true;
        };
        let subnet = edns.and_then(|edns| edns.subnet?.client());
        let region = if self.shared.regions.is_empty() {
            Match { value: None, scope: 0 }
        } else {
            self.shared.regions.find(subnet.unwrap_or(from))
        };
        let table = self.shared.table.load();
        let found = table.find(question, region.value);
        if found.steered {
            if let Some((_, scope)) = opt.as_mut().and_then(|opt| opt.subnet.as_mut()) {
                // Without a client subnet the resolver's address has decided, so the answer is valid for all its clients.
                *scope = if subnet.is_some() { region.scope } else { 0 };
            }
            if region.value.is_some() {
                self.counters.steered(subnet.is_some());
            }
        }
        let limit = match self.transport {
            Transport::Udp => edns.map_or(MAX_UDP_WITHOUT_EDNS, |edns| edns.limit).into(),
            Transport::Tcp => TCP_LIMIT,
        };
        let written = found.write(query, limit, opt.as_ref(), &mut self.random, out);
        self.counters.answered(written.code);
        self.counters.truncated.increment(written.truncated.into());
        true
    }

    /// Drops an answer, or replaces it by one that helps only a real client: TC sends the client to TCP, and BADCOOKIE
    /// gives it a cookie for the next query. Neither amplifies: the reply is as long as the query, plus the cookie.
    #[cold]
    fn limit(&mut self, query: &Query<'_>, opt: Option<&Opt>, out: &mut Vec<u8>) -> bool {
        self.limited = self.limited.wrapping_add(1);
        if self.shared.slip == 0 || !self.limited.is_multiple_of(self.shared.slip) {
            self.counters.limited(Limited::Dropped);
            return false;
        }
        let (code, truncated, limited) = match opt.and_then(|opt| opt.cookie) {
            Some(_) => (Code::BadCookie, false, Limited::BadCookie),
            None => (Code::NoError, true, Limited::Truncated),
        };
        empty_response(query, code, truncated, opt, out);
        self.counters.limited(limited);
        self.counters.answered(code);
        true
    }
}

#[cfg(test)]
mod tests;
