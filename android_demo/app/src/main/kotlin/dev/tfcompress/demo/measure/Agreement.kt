package dev.tfcompress.demo.measure

import dev.tfcompress.demo.tensor.TensorInfo
import dev.tfcompress.demo.tensor.Values
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.log10
import kotlin.math.max

/**
 * Outputs beside those that a bundle expects.
 *
 * @property values that were compared.
 * @property equal share of them that are equal, 0 to 1.
 * @property largest difference: in steps of the grid of an integer output, else in real units.
 * @property unit "steps" or "real".
 * @property allowed the largest difference that rounding explains: a step, or 1e-4 of the largest expected value.
 * @property decibels signal to noise of the worst output: 10 log10(sum(expected^2) / sum((expected - got)^2)).
 * @property sameTop share of the rows that have the same largest value; null without several values a row.
 */
data class Agreement(
    val values: Long, val equal: Double, val largest: Double, val unit: String, val allowed: Double, val decibels: Double,
    val sameTop: Double?,
) {
    /** Nothing but rounding at the end. */
    val agrees: Boolean get() = largest <= allowed

    /** Other kernels round inside of a model, and a softmax magnifies it: a small difference is none of the model. */
    val close: Boolean get() = agrees || decibels >= LEAST_DECIBELS

    private companion object {
        /** Of tflite_export/bench/check.py, too: a difference of a third of the outputs is no rounding. */
        const val LEAST_DECIBELS = 10.0
    }
}

/** Adds up outputs, row by row. */
class Comparison {
    private class Side(val steps: Boolean, val step: Double) {
        var values = 0L
        var equal = 0L
        var largest = 0.0
        var scale = 1.0
        var signal = 0.0
        var noise = 0.0
        val allowed get() = if (steps) 1.0 else max(1e-4 * scale, step * (1 + 1e-4))
        val worse get() = largest / allowed
        val decibels get() = if (noise == 0.0) Double.POSITIVE_INFINITY else if (signal == 0.0) Double.NEGATIVE_INFINITY else 10 * log10(signal / noise)
    }

    private val sides = LinkedHashMap<String, Side>()
    private var rows = 0
    private var same = 0

    /** @param step of the grid that float answers were dequantized from, 0 without one. */
    fun add(info: TensorInfo, expected: ByteBuffer, got: ByteBuffer, step: Double = 0.0) {
        val (left, right) = Values.raw(expected, info.type) to Values.raw(got, info.type)
        require(left.size == right.size) { "${info.name} gives ${right.size} values, ${left.size} are expected" }
        val side = sides.getOrPut(info.name) { Side(info.grid != null, step) }
        for (i in left.indices) {
            val apart = if (left[i] == right[i] || (left[i].isNaN() && right[i].isNaN())) 0.0 else abs(left[i] - right[i])
            if (apart == 0.0) side.equal++
            // What is not a number differs from every number without end.
            side.largest = max(side.largest, if (apart.isNaN()) Double.POSITIVE_INFINITY else apart)
            if (left[i].isFinite()) side.scale = max(side.scale, abs(left[i]))
            val real = if (left[i].isFinite()) left[i] - (info.grid?.zeroPoint ?: 0) else 0.0
            side.signal += real * real
            side.noise += if (apart.isNaN()) Double.POSITIVE_INFINITY else apart * apart
        }
        side.values += left.size
        if (left.size > 1) {
            rows++
            if (top(left) == top(right)) same++
        }
    }

    /** All outputs together; units do not mix, so the worst output is told in its own. Null before the first. */
    fun result(): Agreement? {
        if (sides.isEmpty()) return null
        val worst = sides.values.maxBy { it.worse }
        val values = sides.values.sumOf { it.values }
        val equal = if (values == 0L) 1.0 else sides.values.sumOf { it.equal }.toDouble() / values
        val unit = if (worst.steps) "steps" else "real"
        return Agreement(values, equal, worst.largest, unit, worst.allowed, sides.values.minOf { it.decibels }, if (rows == 0) null else same.toDouble() / rows)
    }

    private fun top(values: DoubleArray): Int = values.indices.maxBy { values[it] }
}
