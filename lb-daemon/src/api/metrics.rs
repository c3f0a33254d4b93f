//! `/metrics`: counters and states, for Prometheus.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use lb_core::state::{
    BackendState, BackendStatus, FarmState, FarmStatus, Histogram, Occurrences, Snapshot, Traffic,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Api;
use super::check_metrics::{self, ConstHistogram};
use super::ill_metrics;
use super::metrics_format::TextFormat;
use super::problem::Problem;
use super::table_metrics;
use super::types::farm_traffic;
use crate::handle::{ChecksTold, TurnedAway};
use crate::ills::Condition;

const FARM_STATUSES: [FarmStatus; 5] =
    [FarmStatus::Up, FarmStatus::Degraded, FarmStatus::Down, FarmStatus::Unchecked, FarmStatus::Disabled];
const BACKEND_STATUSES: [BackendStatus; 7] = [
    BackendStatus::Up,
    BackendStatus::Down,
    BackendStatus::Starting,
    BackendStatus::Draining,
    BackendStatus::Maintenance,
    BackendStatus::Standby,
    BackendStatus::Unchecked,
];

/// Counters and states for Prometheus
///
/// OpenMetrics text for whoever accepts it, else Prometheus' own text format.
#[utoipa::path(
    get, path = "/metrics", tag = "state",
    responses(
        (status = 200, description = "In the format that was accepted",
         content((String = "text/plain"), (String = "application/openmetrics-text"))),
    )
)]
pub(super) async fn get_metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let format = TextFormat::negotiate(&headers);
    // A daemon that is stopping has counters, but no checks any more.
    let checks = api.handle.checks.tell(None, None, 0).await.unwrap_or_default();
    let (handle, condition) = (api.handle.clone(), api.handle.condition.borrow().clone());
    // Of thousands of backends it takes a while.
    let written = tokio::task::spawn_blocking(move || {
        let snapshot = handle.measured()?;
        let (verdicts, occurrences) = (handle.dataplane.verdicts()?, handle.dataplane.occurrences()?);
        let turned_away = handle.turned_away()?;
        let mut registry = Registry::with_prefix("drover");
        registry.register_collector(Box::new(Scrape {
            snapshot,
            condition,
            checks,
            verdicts,
            turned_away,
            occurrences,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok::<_, anyhow::Error>(format.of(text))
    });
    let text = written
        .await
        .map_err(|error| Problem::failed(format!("reading the counters broke off: {error}")))?
        .map_err(|error| Problem::failed(format!("the counters cannot be told: {error:#}")))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// One look at everything that is measured.
#[derive(Debug)]
struct Scrape {
    snapshot: Arc<Snapshot>,
    condition: Arc<Condition>,
    checks: ChecksTold,
    verdicts: Vec<(&'static str, u64)>,
    turned_away: Vec<(String, TurnedAway)>,
    occurrences: Occurrences,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer { encoder };
        self.node(&mut to)?;
        ill_metrics::write(&self.condition, &mut to)?;
        self.farms(&mut to)?;
        self.backends(&mut to)?;
        table_metrics::write(&self.snapshot.tables, &self.occurrences, &mut to)?;
        check_metrics::write(&self.checks, &mut to)?;
        let verdicts = self.verdicts.iter().map(|&(verdict, packets)| ([("verdict", verdict)], packets));
        to.counters("verdict_packets", "Packets seen by the XDP program, by what became of them", verdicts)
    }
}

impl Scrape {
    fn node(&self, to: &mut Writer<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        to.gauges(
            "build_info",
            "Always 1; the label says which version runs",
            [([("version", snapshot.version)], 1)],
        )?;
        let started = snapshot.started.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        to.gauge("start_time_seconds", "When the daemon started, in seconds since 1970", started)?;
        let help = "How many configurations have been applied since the daemon's start";
        to.gauge("config_generation", help, snapshot.generation)?;
        let interfaces = snapshot.interfaces.iter().map(|interface| {
            let labels = [("interface", interface.name.as_str()), ("xdp_mode", interface.xdp_mode)];
            (labels, u64::from(interface.up))
        });
        to.gauges("interface_up", "Whether an interface with the XDP program is there and up", interfaces)?;
        let help = "How much later than due the daemon's loop got to its ticks, ten of them a second";
        to.histogram("tick_lateness_seconds", help, &snapshot.tick_lateness)
    }

    fn farms(&self, to: &mut Writer<'_>) -> fmt::Result {
        let farms = &self.snapshot.farms;
        let each = |value: fn(&FarmState) -> u64| {
            farms.iter().map(move |farm| ([("farm", farm.name.as_str())], value(farm)))
        };
        let statuses = farms.iter().flat_map(|farm| {
            FARM_STATUSES.map(|status| {
                let labels = [("farm", farm.name.as_str()), ("status", status.as_str())];
                (labels, u64::from(farm.status == status))
            })
        });
        to.gauges("farm_status", "1 for the status that the farm has, 0 for the others", statuses)?;
        let connections = each(|farm| farm.backends.iter().map(|backend| backend.connections).sum());
        to.gauges("farm_connections", "Connections tracked now", connections)?;
        let opened = each(|farm| farm_traffic(farm).opened);
        to.counters("farm_connections_opened", "Connections opened", opened)?;
        let directed = |value: Directed| {
            farms.iter().flat_map(move |farm| {
                value(&farm_traffic(farm)).map(|(direction, count)| {
                    ([("farm", farm.name.as_str()), ("direction", direction)], count)
                })
            })
        };
        to.counters(
            "farm_packets",
            "Packets forwarded; in: to backends, out: to clients",
            directed(packets),
        )?;
        to.counters(
            "farm_bytes",
            "Bytes forwarded, whole frames; in: to backends, out: to clients",
            directed(bytes),
        )?;
        let turned = self.turned_away.iter().flat_map(|(farm, reasons)| {
            reasons
                .iter()
                .map(move |(reason, count)| ([("farm", farm.as_str()), ("reason", *reason)], *count))
        });
        to.counters("farm_refused", "Packets of newcomers that a farm has turned away, by its rules", turned)
    }

    fn backends(&self, to: &mut Writer<'_>) -> fmt::Result {
        let backends = || {
            let farms = self.snapshot.farms.iter();
            farms.flat_map(|farm| farm.backends.iter().map(move |backend| (farm.name.as_str(), backend)))
        };
        let each = |value: fn(&BackendState) -> u64| {
            backends().map(move |(farm, backend)| {
                ([("farm", farm), ("backend", backend.name.as_str())], value(backend))
            })
        };
        let up = each(|backend| u64::from(backend.status == BackendStatus::Up));
        to.gauges("backend_up", "1 if the backend's checks pass and nobody took it out, else 0", up)?;
        let statuses = backends().flat_map(|(farm, backend)| {
            BACKEND_STATUSES.map(|status| {
                let labels =
                    [("farm", farm), ("backend", backend.name.as_str()), ("status", status.as_str())];
                (labels, u64::from(backend.status == status))
            })
        });
        to.gauges("backend_status", "1 for the status that the backend has, 0 for the others", statuses)?;
        let weight = each(|backend| u64::from(backend.weight));
        to.gauges("backend_weight", "The weight in force; 0 takes no new connections", weight)?;
        let help = "Addresses of the backend whose next hop is not known: packets for them are dropped";
        let unresolved = each(|backend| u64::try_from(backend.unresolved.len()).unwrap_or(u64::MAX));
        to.gauges("backend_unresolved_addresses", help, unresolved)?;
        to.gauges("backend_connections", "Connections tracked now", each(|backend| backend.connections))?;
        let opened = each(|backend| backend.traffic.opened);
        to.counters("backend_connections_opened", "Connections opened", opened)?;
        let directed = |value: Directed| {
            backends().flat_map(move |(farm, backend)| {
                value(&backend.traffic).map(|(direction, count)| {
                    ([("farm", farm), ("backend", backend.name.as_str()), ("direction", direction)], count)
                })
            })
        };
        to.counters(
            "backend_packets",
            "Packets forwarded; in: to the backend, out: to clients",
            directed(packets),
        )?;
        to.counters(
            "backend_bytes",
            "Bytes forwarded, whole frames; in: to the backend, out: to clients",
            directed(bytes),
        )
    }
}

/// A count of each direction, with the direction's label.
type Directed = fn(&Traffic) -> [(&'static str, u64); 2];

fn packets(of: &Traffic) -> [(&'static str, u64); 2] {
    [("in", of.packets_in), ("out", of.packets_out)]
}

fn bytes(of: &Traffic) -> [(&'static str, u64); 2] {
    [("in", of.bytes_in), ("out", of.bytes_out)]
}

/// Writes one metric after the other.
pub(super) struct Writer<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Writer<'_> {
    /// Counters; the text format appends `_total` to their name.
    pub(super) fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.metrics(name, help, values, ConstCounter::new)
    }

    /// A counter that there is one of.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    pub(super) fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.metrics(name, help, values, constant)
    }

    /// A gauge that there is one of.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let gauge = constant(value);
        gauge.encode(self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    pub(super) fn histograms<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], &'l Histogram)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in values {
            ConstHistogram(histogram).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram that there is one of.
    pub(super) fn histogram(&mut self, name: &str, help: &str, value: &Histogram) -> fmt::Result {
        let histogram = ConstHistogram(value);
        histogram.encode(self.encoder.encode_descriptor(name, help, None, histogram.metric_type())?)
    }

    fn metrics<'l, M: EncodeMetric, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
        metric: fn(u64) -> M,
    ) -> fmt::Result {
        let kind = metric(0).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            metric(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn constant(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
