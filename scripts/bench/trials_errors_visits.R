# Draws trials of `longitudinal` in trials_errors_families.py and fits the mixed model for repeated measures to them by
# nlminb(), with numerical derivatives: z of the arm at the last visit by look and test, as CSV.
# Rscript trials_errors_visits.R patients trials seed looks
# Kenward & Roger 1997, Biometrics 53:983; their second derivatives of the covariance S by log standard deviations and
# regressions of its Cholesky factor, or left out (linear).
args <- commandArgs(TRUE)
patients <- as.integer(args[1]); trials <- as.integer(args[2]); set.seed(as.integer(args[3]))
looks <- as.integer(strsplit(args[4], ",")[[1]])
visits <- 3; numbers <- 3; columns <- visits * numbers; q <- visits * (visits + 1) / 2
at_visit <- rep(seq_len(visits), each = numbers); of_number <- rep(seq_len(numbers), visits)  # of each column
place <- c(outer(at_visit, at_visit, function(i, j) i + visits * (j - 1)))  # of columns' visits in a matrix of visits
diagonal <- (columns + 1) * seq_len(columns) - columns
target <- columns - numbers + 2  # the arm at the last visit
arm <- rep(c(1, 0), length.out = patients)
z_of_t <- function(t, df) sign(t) * -qnorm(pt(-abs(t), df))

root_of <- function(theta) {
  lower <- diag(visits); lower[lower.tri(lower)] <- theta[-seq_len(visits)]
  exp(theta[seq_len(visits)]) * lower
}
covariance <- function(theta) tcrossprod(root_of(theta))
by_columns <- function(m, uu) m[place] * uu  # x' M x, summed over subjects

sums_of <- function(y, base) {  # of the subjects whose last visit is k
  u <- cbind(1, arm[seq_len(nrow(y))], base - mean(base)); last <- rowSums(!is.na(y))
  lapply(sort(unique(last)), function(k) {
    r <- y[last == k, , drop = FALSE]; r[is.na(r)] <- 0; v <- u[last == k, , drop = FALSE]
    uu <- crossprod(v)[of_number, of_number]
    list(n = nrow(v), first = seq_len(k), uu = uu, uy = crossprod(v, r), yy = crossprod(r))
  })
}
fit_at <- function(theta, sums) {  # patients stop for good: the inverse at the first k is of k rows of the root's inverse
  d <- exp(-theta[1:3]); a <- theta[4]; c <- theta[6]; xx <- 0; xy <- 0; deviance <- 0
  half <- matrix(c(d[1], -a * d[1], (a * c - theta[5]) * d[1], 0, d[2], -c * d[2], 0, 0, d[3]), 3)
  for (p in sums) {
    w <- crossprod(half[p$first, , drop = FALSE])
    xx <- xx + by_columns(w, p$uu); xy <- xy + p$uy %*% w
    deviance <- deviance + sum(w * p$yy) + 2 * p$n * sum(theta[p$first])
  }
  root <- chol.default(xx); v <- chol2inv(root); b <- c(v %*% c(xy))
  list(v = v, b = b, deviance = deviance + 2 * sum(log(root[diagonal])) - sum(b * c(xy)))
}
start_of <- function(y, base) {  # each visit by those before it
  before <- diag(visits); u <- cbind(1, arm[seq_len(nrow(y))], base); sd <- numeric(visits)
  for (k in seq_len(visits)) {
    here <- !is.na(y[, k]); x <- cbind(u, y[, seq_len(k - 1)])[here, , drop = FALSE]; one <- lm.fit(x, y[here, k])
    before[k, seq_len(k - 1)] <- -one$coefficients[-seq_len(numbers)]
    sd[k] <- sqrt(sum(one$residuals^2) / one$df.residual)
  }
  lower <- solve(before) %*% diag(sd); c(log(sd), (lower / sd)[lower.tri(lower)])
}
minus_log <- function(theta, sums) fit_at(theta, sums)$deviance / 2
step_of <- function(i, h) replace(numeric(q), i, h)
second <- function(f, at, h) {  # f of at, a number or a matrix: its second derivatives, (value, q, q)
  middle <- c(f(at)); found <- array(0, c(length(middle), q, q))
  forth <- lapply(seq_len(q), function(i) c(f(at + step_of(i, h))))
  back <- lapply(seq_len(q), function(i) c(f(at - step_of(i, h))))
  for (i in seq_len(q)) found[, i, i] <- (forth[[i]] - 2 * middle + back[[i]]) / h^2
  for (i in seq_len(q)) for (j in seq_len(i - 1)) {
    both <- c(f(at + step_of(i, h) + step_of(j, h))) + c(f(at - step_of(i, h) - step_of(j, h)))
    found[, i, j] <- found[, j, i] <- (both - forth[[i]] - forth[[j]] - back[[i]] - back[[j]] + 2 * middle) / (2 * h^2)
  }
  found
}
tests <- function(y, base) {
  sums <- sums_of(y, base)
  options <- list(rel.tol = 1e-11, iter.max = 500, eval.max = 2000)
  theta <- nlminb(start_of(y, base), minus_log, sums = sums, control = options)$par
  fit <- fit_at(theta, sums); v <- fit$v; s <- covariance(theta)
  cov <- solve(second(function(at) minus_log(at, sums), theta, 1e-3)[1, , ])
  bend <- matrix(matrix(second(covariance, theta, 1e-3), visits^2) %*% c(cov), visits)
  slope <- lapply(seq_len(q), function(i) {
    (covariance(theta + step_of(i, 1e-4)) - covariance(theta - step_of(i, 1e-4))) / 2e-4
  })
  p <- rep(list(matrix(0, columns, columns)), q); products <- bends <- 0
  for (d in sums) {
    k <- d$first; w <- matrix(0, visits, visits); w[k, k] <- solve(s[k, k])
    bent <- lapply(slope, function(each) w %*% each)
    inner <- Reduce(`+`, lapply(seq_len(q), function(i) bent[[i]] %*% Reduce(`+`, Map(`*`, cov[i, ], bent))))
    products <- products + by_columns(inner %*% w, d$uu); bends <- bends + by_columns(w %*% bend %*% w, d$uu)
    p <- lapply(seq_len(q), function(i) p[[i]] - by_columns(bent[[i]] %*% w, d$uu))
  }
  for (i in seq_len(q)) products <- products - p[[i]] %*% v %*% Reduce(`+`, Map(`*`, cov[i, ], p))
  gradient <- vapply(p, function(m) -c(v[target, ] %*% m %*% v[, target]), 0)
  plain <- v[target, target]; df <- 2 * plain^2 / c(gradient %*% cov %*% gradient)
  more <- function(m) 2 * c(v[target, ] %*% m %*% v[, target])
  linear <- more(products)
  variance <- plain + c(satterthwaite = 0, kenward_roger = linear - more(bends) / 4, kenward_roger_linear = linear)
  z_of_t(fit$b[target] / sqrt(variance), df)
}
rows <- lapply(seq_len(trials), function(i) {
  y <- sqrt(0.5) * (matrix(rnorm(patients * 4), patients) + rnorm(patients))
  stays <- matrix(runif(patients * 2) > 0.08, patients); stays[, 2] <- stays[, 1] & stays[, 2]
  after <- ifelse(cbind(TRUE, stays), y[, -1], NA)
  do.call(rbind, lapply(looks, function(n) tests(after[seq_len(n), ], y[seq_len(n), 1])))
})
all <- do.call(rbind, rows); colnames(all) <- paste("MMRM,", colnames(all))
write.csv(cbind(look = rep(looks, trials), all), stdout(), row.names = FALSE)
