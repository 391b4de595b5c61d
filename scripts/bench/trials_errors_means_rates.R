# Draws trials of the laws of trials_errors_families.py and tests them with R's own functions: z by look, as CSV.
# Rscript trials_errors_means_rates.R means|adjusted|logistic|counts patients ratio trials seed effect sd theta looks
args <- commandArgs(TRUE)
law <- args[1]; patients <- as.integer(args[2]); ratio <- as.integer(args[3]); trials <- as.integer(args[4])
set.seed(as.integer(args[5])); effect <- as.numeric(args[6]); sd1 <- as.numeric(args[7]); theta <- as.numeric(args[8])
looks <- as.integer(strsplit(args[9], ",")[[1]])
arm <- as.numeric((seq_len(patients) - 1) %% (ratio + 1) < ratio)
z_of_t <- function(t, df) sign(t) * -qnorm(pt(-abs(t), df))

of_adjusted <- function(y, a, x) {
  m <- cbind(1, a, x); fit <- lm.fit(m, y); n <- length(y); df <- fit$df.residual
  bread <- chol2inv(qr.R(fit$qr)); r <- fit$residuals; h <- hat(fit$qr); b <- fit$coefficients[[2]]
  robust <- function(u) { s <- m * u; sqrt((bread %*% crossprod(s) %*% bread)[2, 2]) }
  out <- c("ANCOVA" = b / sqrt(sum(r^2) / df * bread[2, 2]), "ANCOVA HC0" = b / robust(r),
           "ANCOVA HC1" = b / robust(r * sqrt(n / df)), "ANCOVA HC2" = b / robust(r / sqrt(1 - h)),
           "ANCOVA HC3" = b / robust(r / (1 - h)))
  z_of_t(out, df)
}
of_means <- function(y, a, x) {
  out <- of_adjusted(y, a, x)
  p <- function(...) -qnorm(suppressWarnings(...)$p.value)
  one <- y[a == 1]; other <- y[a == 0]
  out["pooled t"] <- p(t.test(one, other, var.equal = TRUE, alternative = "greater"))
  out["Welch's t"] <- p(t.test(one, other, alternative = "greater"))
  out["rank sum"] <- p(wilcox.test(one, other, exact = FALSE, correct = FALSE, alternative = "greater"))
  out["rank sum, continuity"] <- p(wilcox.test(one, other, exact = FALSE, correct = TRUE, alternative = "greater"))
  if (ratio == 1) {
    out["paired t"] <- p(t.test(one - other, alternative = "greater"))
    out["signed rank"] <- p(wilcox.test(one - other, exact = FALSE, correct = TRUE, alternative = "greater"))
  }
  out
}
of_logistic <- function(y, a, x) {
  m <- cbind(1, a, x); n <- length(y)
  fit <- suppressWarnings(glm.fit(m, y, family = binomial()))
  b <- fit$coefficients; v <- chol2inv(qr.R(fit$qr))
  if (!fit$converged || max(abs(b)) > 15) return(nothing)
  m1 <- cbind(1, 1, x); m0 <- cbind(1, 0, x); p1 <- plogis(c(m1 %*% b)); p0 <- plogis(c(m0 %*% b))
  share <- mean(a); e1 <- mean(p1); e0 <- mean(p0)
  d <- rbind(colMeans(p1 * (1 - p1) * m1), colMeans(p0 * (1 - p0) * m0))
  delta <- d %*% v %*% t(d)
  i1 <- a * (y - p1) / share + p1; i0 <- (1 - a) * (y - p0) / (1 - share) + p0
  w <- cov(cbind(i1, i0)) / n
  se <- function(g, v) sqrt(c(t(g) %*% v %*% g))
  c("logistic, Wald" = b[[2]] / sqrt(v[2, 2]),
    "g-computation difference, delta" = (e1 - e0) / se(c(1, -1), delta),
    "g-computation difference, influence" = (e1 - e0) / se(c(1, -1), w),
    "g-computation ratio" = log(e1 / e0) / se(c(1 / e1, -1 / e0), w),
    "g-computation odds ratio" = (qlogis(e1) - qlogis(e0)) / se(c(1 / (e1 * (1 - e1)), -1 / (e0 * (1 - e0))), w))
}
nothing <- c("logistic, Wald" = NA, "g-computation difference, delta" = NA, "g-computation difference, influence" = NA,
             "g-computation ratio" = NA, "g-computation odds ratio" = NA)
of_counts <- function(y, a, time) {
  poisson <- function() glm(y ~ a + offset(log(time)), family = "poisson")
  if (is.infinite(theta)) {
    fit <- glm.fit(cbind(1, a), y, offset = log(time), family = stats::poisson())
    return(c("Poisson, Wald" = fit$coefficients[[2]] / sqrt(chol2inv(qr.R(fit$qr))[2, 2])))
  }
  fit <- suppressWarnings(tryCatch(MASS::glm.nb(y ~ a + offset(log(time))), error = function(e) poisson()))
  c("negative binomial, Wald" = summary(fit)$coefficients[2, 3])
}
rows <- lapply(seq_len(trials), function(i) {
  x <- rnorm(patients)
  y <- switch(law,
    means = , adjusted = (0.5 * x + sqrt(0.75) * rnorm(patients)) * ifelse(arm == 1, sd1, 1) + effect * arm,
    logistic = as.numeric(runif(patients) < plogis(x - 0.5)),
    counts = { x <- runif(patients, 0.5, 1.5)
      rpois(patients, 1.2 * x * if (is.infinite(theta)) 1 else rgamma(patients, theta, theta)) })
  do.call(rbind, lapply(looks, function(n) {
    k <- seq_len(n)
    switch(law, means = of_means(y[k], arm[k], x[k]), adjusted = of_adjusted(y[k], arm[k], x[k]),
           logistic = of_logistic(y[k], arm[k], x[k]), counts = of_counts(y[k], arm[k], x[k]))
  }))
})
all <- do.call(rbind, rows)
write.csv(cbind(look = rep(looks, trials), all), stdout(), row.names = FALSE)
