package dev.tfcompress.demo.measure

import kotlin.math.floor
import kotlin.math.min

/** Figures of single times, in the unit of the times; [spread] is the distance of the quartiles over the median. */
data class Times(val runs: Int, val median: Double, val p90: Double, val p99: Double, val min: Double, val spread: Double?)

object Statistics {
    /** @throws IllegalArgumentException without times, or where one is not finite. */
    fun summary(times: DoubleArray): Times {
        require(times.isNotEmpty() && times.all { it.isFinite() }) { "there must be times, all of them finite" }
        val sorted = times.sortedArray()
        val median = percentile(sorted, 50.0)
        val spread = if (median > 0) (percentile(sorted, 75.0) - percentile(sorted, 25.0)) / median else null
        return Times(times.size, median, percentile(sorted, 90.0), percentile(sorted, 99.0), sorted[0], spread)
    }

    fun median(values: DoubleArray): Double = percentile(values.sortedArray(), 50.0)

    /** The value below which [share] percent lie; between two values in proportion, as NumPy does. */
    fun percentile(sorted: DoubleArray, share: Double): Double {
        val place = share / 100 * (sorted.size - 1)
        val below = floor(place).toInt()
        val above = min(below + 1, sorted.lastIndex)
        return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
    }

    /** Median over the turns of median(own) / median(first); null where no turn has times of both. */
    fun pairedRatio(own: List<DoubleArray>, first: List<DoubleArray>): Double? {
        val ratios = own.zip(first).filter { (a, b) -> a.isNotEmpty() && b.isNotEmpty() && median(b) > 0 }
            .map { (a, b) -> median(a) / median(b) }
        return if (ratios.isEmpty()) null else median(ratios.toDoubleArray())
    }
}
