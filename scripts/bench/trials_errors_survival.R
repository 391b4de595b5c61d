# An independent programme of the laws and tests of trials_errors_survival.py, in plain R: what an asymptotic test that
# misses its nominal value truly does. Argument: a file of R assignments that the Python script writes. It prints one
# line for each row: how many of the trials reject. Its log-rank and Cox statistics are checked against the package
# survival on the first trials.
suppressMessages({library(survival); library(mvtnorm)})
source(commandArgs(trailingOnly = TRUE)[1])
set.seed(seed)

in_blocks <- function(stratum) {
  arm <- integer(length(stratum))
  template <- rep(rep(0:1, parts), length.out = block)
  for (s in unique(stratum)) {
    here <- which(stratum == s)
    listed <- unlist(lapply(seq_len(ceiling(length(here) / block)), function(i) sample(template)))
    arm[here] <- listed[seq_along(here)]
  }
  arm
}

minimised <- function(first, second) {  # Pocock and Simon 1975: range, equal weights
  count <- matrix(0, 4, 2)
  arm <- integer(length(first))
  chance <- runif(length(first))
  for (i in seq_along(first)) {
    cells <- c(first[i] + 1, second[i] + 3)
    lead <- sum(count[cells, 2] - count[cells, 1])
    left <- sum(abs(count[cells, 2] + 1 - count[cells, 1])) - sum(abs(count[cells, 2] - count[cells, 1] - 1))
    p <- if (left < 0) probability else if (left > 0) 1 - probability else 0.5
    arm[i] <- as.integer(chance[i] < p)
    count[cells, arm[i] + 1] <- count[cells, arm[i] + 1] + 1
  }
  arm
}

draw <- function() {
  group <- sample.int(length(risks), n, replace = TRUE) - 1L
  arm <- switch(randomisation,
    blocks = in_blocks(if (in_strata) group else rep(0, n)),
    simple = rbinom(n, 1, parts[2] / sum(parts)),
    minimised = minimised(group %% 2, group %/% 2))
  amount <- rexp(n) / risks[group + 1] / hazard
  total <- c(0, cumsum(diff(starts) * head(ratios, -1)))
  piece <- findInterval(amount, total)
  treated <- starts[piece] + (amount - total[piece]) / ratios[piece]
  event <- ifelse(arm == 1, treated, amount)
  leave <- rexp(n) / dropout
  enter <- cumsum(rexp(n)) / rate
  list(enter = enter, event = event, leave = leave, arm = arm, group = group,
       calendar = ifelse(event <= leave, enter + event, Inf))
}

scores <- function(time, event, arm, stratum) {  # rows at events: stratum, time, at risk, shares, pooled survival before
  parts <- lapply(sort(unique(stratum)), function(s) {
    here <- which(stratum == s)
    here <- here[order(time[here])]
    at_risk <- rev(seq_along(here))
    at_risk_1 <- rev(cumsum(rev(arm[here])))
    is_event <- event[here]
    y <- at_risk[is_event]
    list(time = time[here][is_event], y = y, y1 = at_risk_1[is_event], x = arm[here][is_event],
         s = c(1, cumprod(1 - 1 / y))[seq_along(y)])
  })
  found <- lapply(c("time", "y", "y1", "x", "s"), function(name) lapply(parts, `[[`, name))
  names(found) <- c("time", "y", "y1", "x", "s")
  modest <- unlist(lapply(parts, function(p) {
    late <- p$time > delay
    w <- 1 / p$s
    if (any(late)) w[late] <- if (any(!late)) max(w[!late]) else 1
    w
  }))
  c(lapply(found, unlist), list(modest = modest))
}

weighted <- function(d, w) {
  p <- d$y1 / d$y
  -sum(w * (d$x - p)) / sqrt(sum(w^2 * p * (1 - p)))
}

largest <- function(d) {
  w <- cbind(1, 1 - d$s, d$s, d$s * (1 - d$s))
  p <- d$y1 / d$y
  covariance <- crossprod(w * sqrt(p * (1 - p)))
  z <- max(-crossprod(w, d$x - p) / sqrt(diag(covariance)))
  tail <- pnorm(-z)
  if (tail > 0.025 || 4 * tail <= 0.025) return(if (tail > 0.025) 0 else 3)
  p <- 1 - pmvnorm(upper = rep(z, 4), corr = cov2cor(covariance), algorithm = GenzBretz(abseps = 2e-5))[1]
  -qnorm(p)
}

cox <- function(d) {
  beta <- 0
  for (i in 1:25) {
    p <- exp(beta) * d$y1 / (exp(beta) * d$y1 + d$y - d$y1)
    step <- sum(d$x - p) / sum(p * (1 - p))
    beta <- beta + step
    if (abs(step) < 1e-9) break
  }
  p <- exp(beta) * d$y1 / (exp(beta) * d$y1 + d$y - d$y1)
  c(beta, 1 / sqrt(sum(p * (1 - p))))
}

curve <- function(time, event) {
  o <- order(time)
  y <- rev(seq_along(o))[event[o]]
  list(time = time[o][event[o]], s = cumprod(1 - 1 / y), v = cumsum(1 / (y * (y - 1))), y = y)
}

mean_to <- function(c, tau) {
  inside <- c$time < tau
  width <- diff(c(0, c$time[inside], tau))
  area <- width * c(1, c$s[inside])
  rest <- rev(cumsum(rev(area)))[-1]
  step <- 1 / (c$y[inside] * (c$y[inside] - 1))
  c(sum(area), sum((rest^2 * step)[is.finite(step)]))
}

statistic <- function(kind, d, time, event, arm) {
  if (kind %in% c("rmst", "loglog", "naive")) {
    both <- lapply(1:0, function(a) curve(time[arm == a], event[arm == a]))
    if (kind == "rmst") {
      m <- lapply(both, mean_to, horizon)
      return((m[[1]][1] - m[[2]][1]) / sqrt(m[[1]][2] + m[[2]][2]))
    }
    s <- sapply(both, function(c) tail(c(1, c$s[c$time <= horizon]), 1))
    v <- sapply(both, function(c) tail(c(0, c$v[c$time <= horizon]), 1))
    if (kind == "naive") return((s[1] - s[2]) / sqrt(sum(s^2 * v)))
    return((log(-log(s[2])) - log(-log(s[1]))) / sqrt(sum(v / log(s)^2)))
  }
  if (kind == "wald") { b <- cox(d); return((log(margin) - b[1]) / b[2]) }
  if (kind == "score") {
    p <- margin * d$y1 / (margin * d$y1 + d$y - d$y1)
    return(-sum(d$x - p) / sqrt(sum(p * (1 - p))))
  }
  switch(kind, logrank = weighted(d, 1), late = weighted(d, 1 - d$s), modest = weighted(d, d$modest),
         maxcombo = largest(d))
}

hits <- integer(length(rows))
wanted <- sort(unique(unlist(lapply(rows, `[[`, "events"))))
needed <- lapply(wanted, function(events) lapply(c(FALSE, TRUE), function(strata) {  # kinds at each look
  unique(unlist(lapply(rows, function(r) if (events %in% r$events && r$strata == strata) r$kind)))
}))
for (i in seq_along(rows)) rows[[i]]$names <- paste(rows[[i]]$kind, rows[[i]]$strata, rows[[i]]$events)
for (trial in seq_len(trials)) {
  patients <- draw()
  calendar <- sort(patients$calendar)
  z <- c()
  for (look in seq_along(wanted)) {
    events <- wanted[look]
    month <- calendar[events]
    is_in <- patients$enter < month
    time <- pmin(patients$event, patients$leave, month - patients$enter)[is_in]
    event <- (patients$calendar <= month)[is_in]
    arm <- patients$arm[is_in]
    for (strata in c(FALSE, TRUE)) {
      kinds <- needed[[look]][[strata + 1]]
      if (!length(kinds)) next
      d <- scores(time, event, arm, if (strata) patients$group[is_in] else rep(0, sum(is_in)))
      for (kind in kinds) z[paste(kind, strata, events)] <- statistic(kind, d, time, event, arm)
      if (trial <= 3) {
        by <- if (strata) patients$group[is_in] else rep(0, sum(is_in))
        chi <- survdiff(Surv(time, event) ~ arm + strata(by))$chisq
        stopifnot(abs(chi - weighted(d, 1)^2) < 1e-8)
        fit <- coxph(Surv(time, event) ~ arm + strata(by))
        stopifnot(abs(coef(fit) - cox(d)[1]) < 1e-6, abs(sqrt(vcov(fit)) - cox(d)[2]) < 1e-6)
      }
    }
  }
  for (i in seq_along(rows)) {
    row <- rows[[i]]
    values <- z[row$names]
    for (k in seq_along(values)) {
      value <- values[k]
      if (is.na(value)) next
      if (value >= row$upper[k]) { hits[i] <- hits[i] + 1L; break }
      if (value <= row$lower[k]) break
    }
  }
}
cat(paste0("hits ", seq_along(rows), " ", hits, collapse = "\n"), "\n")
