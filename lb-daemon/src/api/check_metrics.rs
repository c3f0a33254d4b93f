//! What `/metrics` says of the checks.

use std::collections::HashMap;
use std::fmt;

use lb_core::health::Judgement;
use lb_core::state::{CheckReport, Histogram};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::metrics::Writer;
use crate::handle::ChecksTold;

pub(super) fn write(told: &ChecksTold, to: &mut Writer<'_>) -> fmt::Result {
    let checks = &told.checks;
    let up = checks.iter().map(|check| (labels(check), u64::from(check.judgement == Judgement::Up)));
    to.gauges("check_up", "1 if the check holds the backend to be up, else 0", up)?;
    let transitions = checks.iter().map(|check| (labels(check), check.transitions));
    to.counters("check_transitions", "How often the check went from up to down or back", transitions)?;
    let untried = checks.iter().map(|check| (labels(check), check.untried));
    let help = "How often the check could not be made, through no fault of the backend";
    to.counters("check_untried", help, untried)?;
    let help = "How long runs of the check took; a check that farms share has the same runs in each";
    to.histograms("check_duration_seconds", help, checks.iter().map(|it| (labels(it), &it.durations)))?;
    let help = "How much later than planned runs of checks started";
    to.histogram("check_lateness_seconds", help, &told.load.lateness)
}

fn labels(of: &CheckReport) -> [(&str, &str); 3] {
    [("farm", of.farm.as_str()), ("backend", of.backend.as_str()), ("check", of.name.as_str())]
}

/// A histogram as it is now.
pub(super) struct ConstHistogram<'h>(pub &'h Histogram);

impl EncodeMetric for ConstHistogram<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self(histogram) = self;
        let bound =
            |bound: Option<std::time::Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let buckets: Vec<_> = histogram.buckets().map(|(to, count)| (bound(to), count)).collect();
        let exemplars: Option<&HashMap<usize, _>> = None;
        let sum = histogram.sum().as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, exemplars)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
